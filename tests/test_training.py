"""Training against loops by hand, and killed runs against undisturbed ones."""

import copy
import math
import os
import signal
import subprocess
import sys
from dataclasses import asdict, replace
from functools import partial
from itertools import islice
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

from precode_lib.bottleneck import VariationalBottleneck, loss, noise_from
from precode_lib.data import Normalisation, Pictures, Splits
from precode_lib.defenses import dp_sgd_step
from precode_lib.gradients import Gradients
from precode_lib.training import (
    ATS,
    PAPER,
    Protocol,
    Randomness,
    Training,
    evaluate,
    fit,
    progress,
)
from precode_lib.training import loop as training_loop

NORMALISATION = Normalisation((0.4,), (0.3,))
SGD = partial(torch.optim.SGD, lr=0.1)
SHORT = Protocol(epochs=3, batch_size=4, optimizer=SGD)


def pictures(count, seed=0, stored=torch.uint8):
    generator = torch.Generator().manual_seed(seed)
    levels = torch.randint(256, (count, 1, 4, 4), generator=generator)
    levels = levels.byte() if stored is torch.uint8 else levels / 255
    labels = torch.randint(3, (count,), generator=generator)
    return Pictures(levels, labels, tuple("abc"), "squares", "", NORMALISATION)


def splits(**options):
    return Splits(pictures(10, **options), pictures(7, seed=1, **options))


def net(*extra, seed=0):
    torch.manual_seed(seed)
    layers = [nn.Flatten(), nn.Linear(16, 8), nn.Sigmoid(), *extra, nn.Linear(8, 3)]
    return nn.Sequential(*layers).double()


def bottleneck():
    generator = torch.Generator().manual_seed(7)
    return VariationalBottleneck(8, k=2, beta=0.1, generator=generator)


def weights(model):
    return torch.cat([t.flatten().double() for t in model.state_dict().values()])


def by_hand(model, data, protocol, *, seed=0, change=None):
    """An ordinary training loop; gives the model and each epoch's loss and accuracy."""
    model, random = copy.deepcopy(model), Randomness.seeded(seed)
    optimizer = protocol.optimizer(model.parameters())
    rows = []
    for _ in range(protocol.epochs):
        order = torch.randperm(len(data), generator=random.shuffle)
        total, hits = 0.0, 0
        for chosen in order.split(protocol.batch_size):
            images = data.normalisation.normalise(data.stored[chosen].double() / 255)
            labels = data.labels[chosen]
            outputs = []
            handle = model.register_forward_hook(
                lambda m, i, o, to=outputs: to.append(o)
            )
            with noise_from(random.noise):
                batch_loss = loss(model, images, labels)
            handle.remove()
            optimizer.zero_grad()
            batch_loss.backward()
            for parameter in model.parameters() if change else ():
                parameter.grad = change(parameter.grad)
            optimizer.step()
            total += batch_loss.item() * len(chosen)
            hits += sum(outputs[0].argmax(1) == labels).item()
        rows.append((total / len(data), hits / len(data)))
    return model, rows


OPTIMIZERS = {
    "sgd": SGD,
    "adam": partial(torch.optim.Adam, lr=1e-2),
    "paper": PAPER.optimizer,
    "ats": ATS.optimizer,
}


@pytest.mark.parametrize("extra", [None, bottleneck], ids=["plain", "precode"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_fit_is_the_ordinary_loop(optimizer, extra):
    model = net(*([extra()] if extra else []))
    protocol = replace(SHORT, optimizer=optimizer)
    expected, rows = by_hand(model, splits().train, protocol)
    epochs = list(fit(model, splits(), protocol))
    assert_close(weights(model), weights(expected), rtol=1e-12, atol=1e-14)
    for epoch, (train_loss, accuracy) in zip(epochs, rows, strict=True):
        assert epoch.train_loss == pytest.approx(train_loss, rel=1e-12)
        assert epoch.train_accuracy == pytest.approx(accuracy)


def test_each_epoch_tells_the_test_figures_of_the_model_as_it_then_is():
    model = net(bottleneck())
    for number, epoch in enumerate(fit(model, splits(), SHORT), start=1):
        now = evaluate(model, splits().test)
        assert (epoch.epoch, epoch.learning_rate) == (number, 0.1)
        assert (epoch.test_loss, epoch.test_accuracy) == (now.loss, now.accuracy)
        assert epoch.seconds > 0


def test_float_pictures_train_like_the_levels_they_came_from():
    ours, theirs = net(), net()
    list(fit(ours, splits(), SHORT))
    list(fit(theirs, splits(stored=torch.float32), SHORT))
    assert_close(weights(ours), weights(theirs), rtol=1e-6, atol=1e-6)


def test_training_draws_nothing_from_the_global_generator_and_depends_not_on_it():
    ends = []
    for seed in (1, 2):
        model = net(nn.Dropout(0.5), bottleneck())
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        list(fit(model, splits(), SHORT))
        assert torch.equal(torch.get_rng_state(), before)
        ends.append(weights(model))
    assert torch.equal(*ends)


def test_dropout_draws_another_mask_in_every_step():
    model, masks = net(nn.Dropout(0.5)), []
    model[3].register_forward_hook(lambda m, i, o: masks.append(o == 0))
    next(fit(model, splits(), SHORT))
    assert not torch.equal(masks[0], masks[1])


def test_another_seed_is_another_run_and_the_streams_are_independent():
    ends = {}
    for seed in (0, 0, 1):
        model = net()
        list(fit(model, splits(), SHORT, random=Randomness.seeded(seed)))
        ends.setdefault(seed, []).append(weights(model))
    assert torch.equal(*ends[0])
    assert not torch.allclose(ends[0][0], ends[1][0])
    streams = Randomness.seeded(0)
    generators = (streams.shuffle, streams.augment, streams.noise, streams.defense)
    draws = {torch.rand((), generator=g).item() for g in generators}
    assert len(draws) == 4
    dropout = torch.Generator()
    dropout.set_state(streams.torch_states(torch.device("cpu")).states[0])
    assert torch.rand((), generator=dropout).item() not in draws


def test_the_model_learns_in_training_mode_and_comes_back_in_its_own():
    seen = []
    model = net(nn.BatchNorm1d(8)).train()
    model[3].eval()
    model[3].register_forward_hook(lambda m, i, o: seen.append(m.training))
    next(fit(model, splits(), SHORT))
    assert seen == [False, *[True] * 3, False]  # one look, three steps, one test
    assert model.training
    assert not model[3].training


def test_frozen_parameters_stay_and_unused_ones_count_as_zero():
    model = net()
    model[1].weight.requires_grad_(False)
    model.register_parameter("spare", nn.Parameter(torch.ones(2).double()))
    before, seen = weights(model[1]), []

    def defense(gradients):
        seen.append(gradients)
        return gradients

    next(fit(model, splits(), SHORT, defense=defense))
    assert torch.equal(model[1].weight.flatten(), before[: 8 * 16])
    assert "1.weight" not in seen[0]
    assert torch.equal(seen[0]["spare"], torch.zeros(1, 2).double())
    assert torch.equal(model.spare, torch.ones(2).double())


@pytest.mark.parametrize("late", ["unfrozen", "replaced"])
def test_what_the_optimizer_does_not_know_is_not_left_behind_in_silence(late):
    model = net()
    model[1].requires_grad_(late == "replaced")
    run = fit(model, splits(), SHORT)
    next(run)
    if late == "unfrozen":
        model[1].requires_grad_(True)
    else:
        model[1] = nn.Linear(16, 8).double()
    with pytest.raises(ValueError, match=r"1\.weight', '1\.bias.*begin another"):
        next(run)
    model[1].requires_grad_(False)  # to freeze more is no harm
    assert next(run).epoch == 2


# --- defenses and augmentation ------------------------------------------------------


def test_a_defense_changes_the_gradient_of_every_step():
    model = net()
    expected, _ = by_hand(model, splits().train, SHORT, change=torch.sign)
    seen = []

    def signs(gradients):
        seen.append(gradients.num_victims)
        return gradients.map(torch.sign)

    list(fit(model, splits(), SHORT, defense=signs))
    assert_close(weights(model), weights(expected))
    assert seen == [1] * 9


BAD_DEFENSES = {
    "must return Gradients, got list": (TypeError, lambda g: list(g.values())),
    "2 victim": (ValueError, lambda g: g.take(torch.tensor([0, 0]))),
    "4.bias": (
        ValueError,
        lambda g: Gradients({**g, "4.bias": torch.zeros(1, 5)}),
    ),
}


@pytest.mark.parametrize("problem", BAD_DEFENSES)
def test_a_defense_that_breaks_the_gradient_is_refused(problem):
    error, defense = BAD_DEFENSES[problem]
    with pytest.raises(error, match=problem):
        next(fit(net(bottleneck()), splits(), SHORT, defense=defense))


def test_a_parameter_that_the_defense_withholds_is_not_trained():
    model = net()
    before = copy.deepcopy(model.state_dict())
    adam = replace(SHORT, optimizer=PAPER.optimizer)
    list(fit(model, splits(), adam, defense=lambda g: g.drop("1.*")))
    moved = {n for n, t in model.state_dict().items() if not torch.equal(t, before[n])}
    assert moved == {"3.weight", "3.bias"}


def test_a_client_step_takes_the_place_of_the_gradient_before_the_defense():
    ours, theirs = net(), net()
    random = Randomness.seeded(0)
    clipping = partial(
        dp_sgd_step, clip_norm=0.1, noise_multiplier=0, generator=random.defense
    )
    list(fit(ours, splits(), SHORT, client_step=clipping, defense=double))
    optimizer, random = SGD(theirs.parameters()), Randomness.seeded(0)
    data = splits().train
    for _ in range(SHORT.epochs):
        for rows in torch.randperm(10, generator=random.shuffle).split(4):
            clipped = 0
            for row in rows:
                optimizer.zero_grad()
                images = NORMALISATION.normalise(data.stored[row].double() / 255)
                loss(theirs, images[None], data.labels[row][None]).backward()
                nn.utils.clip_grad_norm_(theirs.parameters(), 0.1)
                clipped += torch.cat([p.grad.flatten() for p in theirs.parameters()])
            nn.utils.vector_to_parameters(
                nn.utils.parameters_to_vector(theirs.parameters())
                - 0.1 * 2 * clipped / len(rows),
                theirs.parameters(),
            )
    assert_close(weights(ours), weights(theirs), rtol=1e-5, atol=1e-6)


def double(gradients):
    return Gradients({n: 2 * t for n, t in gradients.dense().items()})


def test_the_figures_of_a_client_step_are_those_of_the_plain_run():
    def plain(capture, images, labels, *, noise):
        return capture(images, labels, noise=noise)

    models = net(nn.BatchNorm1d(8)), net(nn.BatchNorm1d(8))
    first, second = (
        list(fit(m, splits(), SHORT, client_step=step))
        for m, step in zip(models, (plain, None), strict=True)
    )
    assert_close(weights(models[0]), weights(models[1]))
    for ours, theirs in zip(first, second, strict=True):
        assert ours.train_loss == pytest.approx(theirs.train_loss)
        assert ours.test_accuracy == theirs.test_accuracy


def test_augmentation_sees_pixels_and_its_own_stream_and_the_test_does_without():
    model, seen = net(), []
    random = Randomness.seeded(3)

    def darken(pixels, generator):
        assert generator is random.augment
        seen.append(pixels)
        return torch.zeros_like(pixels)

    images = []
    model.register_forward_pre_hook(lambda m, args: images.append(args[0]))
    next(fit(model, splits(), SHORT, augment=darken, random=random))
    assert [len(pixels) for pixels in seen] == [4, 4, 2]
    assert all(p.min() >= 0 and p.max() <= 1 for p in seen)
    black = (0 - 0.4) / 0.3
    assert all((batch - black).abs().max() < 1e-6 for batch in images[1:4])
    assert images[4].std() > 0.1


def test_the_training_steps_run_through_the_compiled_model():
    calls = []

    class Compiled(nn.Module):
        def __init__(self, model):
            super().__init__()
            self.model = model

        def forward(self, images):
            calls.append(len(images))
            return self.model(images)

    model, plain = net(bottleneck()), net(bottleneck())
    list(fit(model, splits(), SHORT, compiled=Compiled))
    list(fit(plain, splits(), SHORT))
    assert calls == [4, 4, 2] * 3
    assert torch.equal(weights(model), weights(plain))


# --- protocols ----------------------------------------------------------------------


def test_the_paper_trains_with_adam_for_300_epochs_in_batches_of_64():
    optimizer = PAPER.optimizer([nn.Parameter(torch.ones(1))])
    assert isinstance(optimizer, torch.optim.Adam)
    assert optimizer.defaults["lr"] == 1e-3
    assert optimizer.defaults["betas"] == (0.9, 0.999)
    assert (PAPER.epochs, PAPER.batch_size) == (300, 64)
    assert {PAPER.schedule(e, 300) for e in range(300)} == {1.0}


def test_ats_trains_with_nesterov_and_three_falls_of_the_rate():
    optimizer = ATS.optimizer([nn.Parameter(torch.ones(1))])
    wanted = {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 5e-4}
    assert isinstance(optimizer, torch.optim.SGD)
    assert {name: optimizer.defaults[name] for name in wanted} == wanted
    assert (ATS.epochs, ATS.batch_size) == (200, 128)
    rates = [ATS.schedule(e, 200) for e in range(200)]
    falls = [e for e in range(1, 200) if rates[e] != rates[e - 1]]
    assert falls == [74, 124, 175]  # published with the code
    assert rates[-1] == pytest.approx(1e-3)


def test_the_rate_of_every_group_follows_the_schedule():
    def two_groups(parameters):
        groups = [{"params": parameters[:1]}, {"params": parameters[1:], "lr": 0.02}]
        return torch.optim.SGD(groups, lr=0.1)

    protocol = replace(SHORT, optimizer=two_groups, schedule=lambda e, n: 1 - e / n)
    training = fit(net(), splits(), protocol)
    rates = [epoch.learning_rate for epoch in training]
    assert rates == pytest.approx([0.1, 0.2 / 3, 0.1 / 3])
    last = training.state_dict()["optimizer"]["param_groups"][1]["lr"]
    assert last == pytest.approx(0.02 / 3)


def test_bad_choices_are_refused_in_words():
    with pytest.raises(ValueError, match="epochs must be at least 1"):
        replace(PAPER, epochs=0)
    with pytest.raises(TypeError, match="batch_size must be a whole number"):
        replace(PAPER, batch_size=0.5)
    with pytest.raises(TypeError, match="it made int"):
        fit(net(), splits(), replace(SHORT, optimizer=len))
    with pytest.raises(ValueError, match="has no parameters"):
        fit(nn.Flatten(), splits())
    with pytest.raises(ValueError, match="no parameter of the model requires"):
        fit(net().requires_grad_(False), splits())
    narrow = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
    with pytest.raises(ValueError, match=r"\(1, 2\) for one picture; it needs \(1, 3"):
        fit(narrow, splits())
    with pytest.raises(ValueError, match="every needs a checkpoint file"):
        fit(net(), splits(), every=3)
    with pytest.raises(ValueError, match="every must be at least 1"):
        fit(net(), splits(), checkpoint="never-written.pt", every=0)
    with pytest.raises(ValueError, match="seed must be at least 0"):
        Randomness.seeded(-1)


# --- stop, save, resume -------------------------------------------------------------


def everything_random(checkpoint=None, *, die_at=None, every=None):
    """A training with every kind of randomness; may kill its own process on the way."""
    random, calls = Randomness.seeded(5), []

    def shaky(pixels, generator):
        calls.append(None)
        if len(calls) == die_at:
            os.kill(os.getpid(), signal.SIGKILL)
        noise = torch.rand(pixels.shape, generator=generator)
        return (pixels + 0.1 * noise * torch.rand(())).clamp(0, 1)

    def noisy(gradients):
        return gradients.map(
            lambda t: t + 0.1 * torch.randn(t.shape, generator=random.defense)
        )

    model = net(nn.BatchNorm1d(8), nn.Dropout(0.3), bottleneck()).float()
    protocol = Protocol(4, 4, PAPER.optimizer, lambda epoch, epochs: 0.5**epoch)
    return fit(
        model,
        splits(),
        protocol,
        defense=noisy,
        augment=shaky,
        random=random,
        checkpoint=checkpoint,
        every=every,
    )


def figures(training):
    return [{**asdict(e), "seconds": None} for e in training.history]


@pytest.fixture(scope="module")
def uninterrupted():
    training = everything_random()
    list(training)
    return training


def assert_same_end(training, uninterrupted):
    assert torch.equal(weights(training.model), weights(uninterrupted.model))
    assert figures(training) == figures(uninterrupted)


def test_a_run_killed_in_mid_epoch_ends_with_the_same_weights_bit_for_bit(
    tmp_path, uninterrupted
):
    file = tmp_path / "run.pt"
    code = (
        "import torch; torch.set_num_threads(1)\n"
        "from test_training import everything_random\n"
        f"list(everything_random({str(file)!r}, die_at=9, every=2))"
    )
    here = Path(__file__).parent
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(here), *sys.path])}
    process = subprocess.run([sys.executable, "-c", code], env=environment)
    assert process.returncode == -signal.SIGKILL
    resumed = everything_random(file)
    assert len(resumed.history) == 2
    assert resumed.state_dict()["running"]["num_steps"] == 2
    list(resumed)
    assert_same_end(resumed, uninterrupted)


@pytest.mark.parametrize(
    ("die_at", "every", "resumes_at"), [(2, 1, 1), (3, 2, 2), (6, 3, 0), (6, None, 0)]
)
def test_a_run_goes_on_from_the_last_step_that_was_written(
    die_at, every, resumes_at, tmp_path, uninterrupted, monkeypatch
):
    def stop(process, kind):
        raise SystemExit

    monkeypatch.setattr(os, "kill", stop)
    file = tmp_path / "run.pt"
    with pytest.raises(SystemExit):
        list(everything_random(file, die_at=die_at, every=every))
    resumed = everything_random(file)
    running = resumed.state_dict()["running"]
    assert (running["num_steps"] if running else 0) == resumes_at
    list(resumed)
    assert_same_end(resumed, uninterrupted)


def test_a_loop_that_stops_goes_on_where_it_was(uninterrupted):
    training = everything_random()
    assert [epoch.epoch for epoch in islice(training, 2)] == [1, 2]
    assert len(training) == 2
    assert [epoch.epoch for epoch in training] == [3, 4]
    assert_same_end(training, uninterrupted)


def test_an_error_in_mid_epoch_loses_nothing(uninterrupted):
    training = everything_random()
    steps, step = [], training._step

    def stopped(rows):
        steps.append(rows)
        if len(steps) == 5:
            raise KeyboardInterrupt
        return step(rows)

    training._step = stopped
    with pytest.raises(KeyboardInterrupt):
        list(training)
    list(training)
    assert_same_end(training, uninterrupted)


def test_a_finished_run_is_not_repeated_and_can_be_prolonged(tmp_path):
    file = tmp_path / "deeper" / "run.pt"
    done = list(fit(net(), splits(), SHORT, checkpoint=file))
    again = fit(net(seed=9), splits(), SHORT, checkpoint=file)
    assert list(again) == []
    assert again.history == done
    longer = fit(net(), splits(), replace(SHORT, epochs=5), checkpoint=file)
    assert [epoch.epoch for epoch in longer] == [4, 5]
    through = net()
    list(fit(through, splits(), replace(SHORT, epochs=5)))
    assert torch.equal(weights(longer.model), weights(through))


def test_a_checkpoint_holds_no_code(tmp_path):
    training = everything_random(tmp_path / "run.pt", every=1)
    next(training)
    state = torch.load(tmp_path / "run.pt", weights_only=True)
    assert state["history"] == [asdict(training.history[0])]


def test_a_file_with_code_in_it_is_not_run(tmp_path):
    file = tmp_path / "run.pt"
    ran = tmp_path / "ran"

    class Intruder:
        def __reduce__(self):
            return os.mkdir, (str(ran),)

    torch.save({"settings": Intruder()}, file)
    with pytest.raises(ValueError, match="not a checkpoint that can be read"):
        fit(net(), splits(), SHORT, checkpoint=file)
    assert not ran.exists()


def test_a_failed_write_leaves_the_last_checkpoint_whole(tmp_path, monkeypatch):
    file = tmp_path / "run.pt"
    training = fit(net(), splits(), SHORT, checkpoint=file)
    next(training)
    before = file.read_bytes()

    def half(state, path):
        Path(path).write_bytes(b"half a checkpoi")
        raise OSError("disk full")

    monkeypatch.setattr(training_loop.torch, "save", half)
    with pytest.raises(OSError, match="disk full"):
        next(training)
    assert file.read_bytes() == before
    assert os.listdir(tmp_path) == ["run.pt"]


def test_a_checkpoint_of_another_training_is_refused(tmp_path):
    file = tmp_path / "run.pt"
    next(fit(net(), splits(), SHORT, checkpoint=file))
    with pytest.raises(ValueError, match="with batch_size 4, this one has 5"):
        fit(net(), splits(), replace(SHORT, batch_size=5), checkpoint=file)
    fewer = Splits(pictures(9), pictures(7))
    with pytest.raises(ValueError, match="with num_pictures 10, this one has 9"):
        fit(net(), fewer, SHORT, checkpoint=file)
    with pytest.raises(ValueError, match="with optimizer SGD, this one has Adam"):
        adam = replace(SHORT, optimizer=torch.optim.Adam)
        fit(net(), splits(), adam, checkpoint=file)
    with pytest.raises(ValueError, match="with parameters"):
        fit(net(nn.Linear(8, 8)), splits(), SHORT, checkpoint=file)


@pytest.mark.parametrize("content", [b"", b"no checkpoint", b"PK\3\4 broken"])
def test_a_file_that_is_no_checkpoint_is_refused(tmp_path, content):
    file = tmp_path / "run.pt"
    file.write_bytes(content)
    with pytest.raises(ValueError, match="run.pt is not a checkpoint that can be read"):
        fit(net(), splits(), SHORT, checkpoint=file)


def test_a_diverging_run_goes_on_and_says_nan():
    protocol = replace(SHORT, optimizer=partial(torch.optim.SGD, lr=math.inf))
    epochs = list(fit(net().float(), splits(), protocol))
    assert len(epochs) == 3
    assert epochs[-1].train_loss != epochs[-1].train_loss


def test_the_progress_bar_shows_what_it_passes_on(capsys):
    training = Training(net(), splits(), SHORT)
    next(training)
    epochs = list(progress(training, mininterval=0, ascii=True))
    assert [epoch.epoch for epoch in epochs] == [2, 3]
    bar = capsys.readouterr().err
    assert "3/3" in bar
    assert f"loss {epochs[-1].train_loss:.3g}, accuracy" in bar


# --- evaluation ---------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [1, 3, 7, 100])
def test_evaluation_counts_every_picture_once(batch_size):
    model, data = net(nn.BatchNorm1d(8)), pictures(7)
    for parameter in model[3].buffers():
        parameter.add_(1)
    result = evaluate(model, data, batch_size=batch_size)
    logits = model.eval()(data.images.double())
    expected = F.cross_entropy(logits, data.labels).item()
    assert result.loss == pytest.approx(expected, rel=1e-6)
    hits = (logits.argmax(1) == data.labels).double().mean().item()
    assert (result.accuracy, result.num_pictures) == (pytest.approx(hits), 7)


def test_evaluation_of_precode_repeats_itself_unless_given_a_generator():
    model, data = net(bottleneck()), pictures(7)
    before = torch.get_rng_state()
    fixed = [evaluate(model, data).loss for _ in range(2)]
    assert torch.equal(torch.get_rng_state(), before)
    assert fixed[0] == fixed[1]
    generator = torch.Generator().manual_seed(1)
    free = [evaluate(model, data, generator=generator).loss for _ in range(2)]
    assert len({fixed[0], *free}) == 3


def test_evaluation_leaves_the_model_and_its_modes_alone():
    model = net(nn.BatchNorm1d(8), nn.Dropout(0.5))
    model[3].eval()
    modes = [m.training for m in model.modules()]
    before = copy.deepcopy(model.state_dict())
    evaluate(model, pictures(7))
    assert [m.training for m in model.modules()] == modes
    assert all(torch.equal(before[k], t) for k, t in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
    assert not model._forward_hooks


def test_evaluation_refuses_what_it_cannot_measure():
    with pytest.raises(ValueError, match="batch_size must be at least 1"):
        evaluate(net(), pictures(7), batch_size=0)
    with pytest.raises(ValueError, match="the loss did not call the model"):
        evaluate(net(), pictures(7), loss=lambda model, x, y: x.sum((1, 2, 3)))
