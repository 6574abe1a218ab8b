"""Typical wrong answers, and what each is told."""

import copy
from collections import OrderedDict

import pytest
import torch
from marking import assert_refused, assert_right
from torch import nn
from torch.nn import functional as F

from precode_lib.bottleneck import VariationalBottleneck, noise_from
from precode_lib.checks import TODO
from precode_lib.checks import any_model as check


@pytest.mark.parametrize(
    ("encoder", "decoder", "largest", "hint"),
    [
        (15, 16, 6, "2k outputs"),
        (24, 16, 6, "biases are missing"),
        (28, 16, 6, "not for each input"),
        (31, 16, 6, "count its outputs"),
        (30, 28, 6, "one sample of k entries"),
        (30, 12, 6, "biases are missing"),
        (30, 15, 6, "not for each input"),
        (30, 46, 6, "both layers"),
        (30, 16, 7, "round down"),
        (30, 16, 10, "encoder alone"),
        (30, 16, 5, "still fit"),
        (30, 16, 256, "solve for k"),
    ],
)
def test_a_wrong_count_is_told_what_was_left_out(encoder, decoder, largest, hint):
    assert_right(check.by_hand, 30, 16, 6)
    assert_refused(check.by_hand, encoder, decoder, largest, hint=hint)


def passed(features, weights, noise, spread=F.softplus, order=1, decoded_bias=True):
    flat = features.flatten(1)
    encoded = F.linear(flat, weights["encoder.weight"], weights["encoder.bias"])
    mean, raw = encoded.chunk(2, dim=1)[::order]
    code = mean + spread(raw) * noise
    bias = weights["decoder.bias"] if decoded_bias else None
    return F.linear(code, weights["decoder.weight"], bias).view(features.shape)


def without_bias(features, weights, noise):
    zero = torch.zeros_like(weights["encoder.bias"])
    return passed(features, weights | {"encoder.bias": zero}, noise)


@pytest.mark.parametrize(
    ("learner", "hint"),
    [
        (lambda h, w, n: passed(h, w, n, torch.exp), "not eʳ"),
        (lambda h, w, n: passed(h, w, n, lambda r: r), "as it is"),
        (lambda h, w, n: passed(h, w, n, order=-1), "swapped"),
        (lambda h, w, n: passed(h, w, 0 * n), "noise is missing"),
        (lambda h, w, n: passed(h, w, n, decoded_bias=False), "decoder's bias"),
        (without_bias, "encoder's bias"),
        (lambda h, w, n: passed(h, w, n).flatten(1), "the features had"),
        (lambda h, w, n: passed(h, w, -n), "flatten each example"),
    ],
)
def test_a_wrong_forward_pass_is_told_what_it_computed(learner, hint):
    assert_right(check.forward, passed)
    assert_refused(check.forward, learner, hint=hint)


def insert(model, name, module, is_copied=True, order=1, names=("bottleneck", "layer")):
    model = copy.deepcopy(model) if is_copied else model
    path, _, last = name.rpartition(".")
    parent = model.get_submodule(path)
    parts = [module, getattr(parent, last)][::order]
    setattr(parent, last, nn.Sequential(OrderedDict(zip(names, parts, strict=True))))
    return model


def trial(insert):
    """As the notebook's `tried`."""

    def tried(name, weights, inside, images, noise):
        model = check.network(weights)
        module = VariationalBottleneck(5, noise.shape[1])
        module.load_state_dict(inside)
        protected = insert(model, name, module)
        if protected is TODO:
            return TODO
        with torch.no_grad(), noise_from([noise]):
            new = protected(images)
        with torch.no_grad():
            for parameter in protected.parameters():
                parameter.zero_()
            old = model(images)
        names, old_names = list(protected.state_dict()), list(model.state_dict())
        return {"names": names, "old_names": old_names, "new": new, "old": old}

    return tried


def shallow(model, name, module):
    """A new network around the old layers."""
    parts = OrderedDict(model.named_children())
    features = OrderedDict(parts["features"].named_children())
    host = nn.Sequential(OrderedDict(features=nn.Sequential(features), fc=parts["fc"]))
    return insert(host, name, module, is_copied=False)


def behind_inside(model, name, module):
    """Right at the top, and behind the layer where it is nested."""
    if "." not in name:
        return insert(model, name, module)
    twisted = insert(model, name, module, order=-1)
    pair = twisted.get_submodule(name)
    pair.bottleneck, pair.layer = pair.layer, pair.bottleneck
    pair.forward = lambda x: pair.bottleneck(pair.layer(x))
    return twisted


def forgets_to_sample(model, name, module):
    new = insert(model, name, module)
    pair = new.get_submodule(name)
    # drawn, and not used
    pair.forward = lambda x: (pair.bottleneck(x), pair.layer(x))[1]
    return new


def top_only(model, name, module):
    return insert(model, name.split(".")[0], module)


@pytest.mark.parametrize(
    ("learner", "hint", "state"),
    [
        (lambda *a: insert(*a, is_copied=False), "has changed", "wrong"),
        (shallow, "share tensors", "wrong"),
        (lambda *a: insert(*a, names=("0", "1")), "`bottleneck` and `layer`", "wrong"),
        (behind_inside, "behind the layer", "wrong"),
        (forgets_to_sample, "does not run", "wrong"),
        (lambda *a: insert(*a, order=-1), "stopped with", "raised"),
        (top_only, "stopped with", "raised"),
        (lambda *a: TODO, "not answered yet", "unanswered"),
    ],
)
def test_a_wrong_insertion_is_told_what_became_of_the_network(learner, hint, state):
    assert_right(check.insertion, trial(insert))
    assert_refused(check.insertion, trial(learner), hint=hint, state=state)


def test_an_insertion_that_starts_the_layer_anew_is_seen_by_its_logits():
    def forgetful(model, name, module):
        new = insert(model, name, module)
        with torch.no_grad():
            new.get_submodule(name).layer.weight.fill_(0.1)
        return new

    assert_refused(check.insertion, trial(forgetful), hint="old layer with its")


def test_a_changed_trial_is_refused():
    assert_refused(check.insertion, lambda *a: [1], hint="leave the cell")


@pytest.mark.parametrize(
    ("place", "hint"),
    [
        ("stage1", "still the larger"),
        ("stage2", "still the larger"),
        ("activation", "still the larger"),
        ("fc", "should be one of"),
        (3, "should be one of"),
    ],
)
def test_a_wrong_place_is_told_which_kind_is_larger_there(place, hint):
    assert_right(check.smaller_kind, "stage3")
    assert_refused(check.smaller_kind, place, hint=hint)


def test_an_open_question_wants_some_sentences():
    assert_refused(check.at_the_picture, "No, not at all.", hint="words are few")
    verdict = check.at_the_picture.judge("TODO", generator=torch.Generator())
    assert verdict.state == "unanswered"
