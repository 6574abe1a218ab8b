"""Models as people have them: each is observed as it is, and its gradient is right.

The oracle is one `backward` for each victim, of the model itself on its own inputs.
"""

import copy
from dataclasses import dataclass

import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional as F

from precode_lib.attacks import Recipe, Search, known_labels
from precode_lib.bottleneck import per_example_loss
from precode_lib.data import PHOTOS
from precode_lib.defenses import dp_sgd_step
from precode_lib.federated import LocalTraining, observe
from precode_lib.models import Packing, packed


class Recurrent(nn.Module):
    """Tokens through an LSTM, to logits."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(11, 6)
        self.lstm = nn.LSTM(6, 5, batch_first=True)
        self.out = nn.Linear(5, 3)

    def forward(self, tokens):
        return self.out(self.lstm(self.table(tokens))[0][:, -1])


class Language(nn.Module):
    """A small transformer that foretells the next token; its table is its output."""

    def __init__(self):
        super().__init__()
        self.table, self.places = nn.Embedding(11, 8), nn.Embedding(5, 8)
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, 0.0, batch_first=True)
        self.out = nn.Linear(8, 11, bias=False)
        self.out.weight = self.table.weight

    def forward(self, tokens):
        places = torch.arange(tokens.shape[1], device=tokens.device)
        mask = nn.Transformer.generate_square_subsequent_mask(tokens.shape[1])
        x = self.table(tokens) + self.places(places)
        return self.out(self.layer(x, src_mask=mask.to(x)))


def next_token_loss(model, tokens, labels):
    logits = model(tokens).transpose(1, 2)
    return F.cross_entropy(logits, labels, reduction="none").mean(1)


class LowRank(nn.Module):
    """A frozen layer with an adapter, two rounds after the first."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner.requires_grad_(False)
        rows, columns = inner.weight.shape
        self.a = nn.Parameter(torch.randn(2, columns) / 4)
        self.b = nn.Parameter(torch.randn(rows, 2) / 4)

    def forward(self, x):
        return self.inner(x) + x @ self.a.T @ self.b.T


class TwoInputs(nn.Module):
    """A picture, and a row beside it."""

    def __init__(self):
        super().__init__()
        self.picture, self.row = nn.Conv2d(3, 4, 3), nn.Linear(5, 4)
        self.out = nn.Linear(4 * 36 + 4, 3)

    def forward(self, picture, row):
        deep = torch.sigmoid(self.picture(picture)).flatten(1)
        return self.out(torch.cat([deep, self.row(row)], 1))


class Masked(nn.Module):
    """Tokens and which of them count, by name, to something with logits."""

    def __init__(self):
        super().__init__()
        self.table, self.out = nn.Embedding(11, 6), nn.Linear(6, 3)

    def forward(self, input_ids, attention_mask):
        weights = attention_mask / attention_mask.sum(1, keepdim=True)
        mean = (self.table(input_ids) * weights[:, :, None]).sum(1)
        return Answer(self.out(mean), None)


@dataclass
class Answer:
    logits: torch.Tensor
    loss: torch.Tensor | None


class Returning(nn.Module):
    """A model whose logits lie in something else."""

    def __init__(self, wrap):
        super().__init__()
        self.net, self.wrap = nn.Linear(6, 3), wrap

    def forward(self, x):
        return self.wrap(torch.sigmoid(self.net(x)))


class UNet(nn.Module):
    """Masks (N, 1, H, W), as a dict."""

    def __init__(self):
        super().__init__()
        self.down = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.up, self.out = nn.ConvTranspose2d(4, 4, 2, stride=2), nn.Conv2d(7, 1, 1)

    def forward(self, x):
        deep = self.up(torch.sigmoid(self.down(x)))
        return {"mask": self.out(torch.cat([x, deep], 1))}


def mask_loss(model, x, masks):
    found = model(x)["mask"]
    each = F.binary_cross_entropy_with_logits(found, masks, reduction="none")
    return each.mean((1, 2, 3))


def several_loss(model, x, labels):
    each = F.binary_cross_entropy_with_logits(model(x), labels, reduction="none")
    return each.sum(1)


def number_loss(model, x, numbers):
    return (model(x).squeeze(1) - numbers).square()


def second_loss(model, x, labels):
    return F.cross_entropy(model(x)[1], labels, reduction="none")


def images(side=8, victims=2, batch=2):
    return torch.randn(victims, batch, 3, side, side)


def rows(*shape):
    return torch.randn(2, 2, *(shape or (6,)))


def classes(count=3):
    return torch.randint(count, (2, 2))


def tokens():
    return torch.randint(11, (2, 2, 5))


def of_torchvision(name, training, **options):
    model = getattr(torchvision.models, name)(num_classes=3, **options)
    return model.train(training)


def vit():
    sizes = {"num_layers": 1, "num_heads": 2, "hidden_dim": 8, "mlp_dim": 16}
    model = torchvision.models.VisionTransformer(8, 4, num_classes=3, **sizes)
    nn.init.normal_(model.heads.head.weight, std=0.1)
    return model


def mlp(inner=None):
    inner = inner or nn.Linear(6, 8)
    return nn.Sequential(inner, nn.GELU(), nn.Linear(8, 3))


def last_layer_only():
    model = mlp()
    model[0].requires_grad_(False)
    return model


def tied():
    one = nn.Linear(6, 6)
    return nn.Sequential(one, nn.Tanh(), one, nn.Linear(6, 3))


def group_norm():
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4), nn.SiLU(), nn.Flatten(),
        nn.Linear(4 * 36, 3),
    )  # fmt: skip


# (model, what goes in, labels, loss or None)
MODELS = {
    "resnet18, training": lambda: (
        of_torchvision("resnet18", True), images(32), classes(), None),
    "resnet18, evaluation": lambda: (
        of_torchvision("resnet18", False), images(32), classes(), None),
    "mobilenet, evaluation": lambda: (
        of_torchvision("mobilenet_v3_small", False), images(32), classes(), None),
    "mobilenet, training": lambda: (
        of_torchvision("mobilenet_v3_small", True, dropout=0), images(64), classes(),
        None),
    "vision transformer": lambda: (vit(), images(), classes(), None),
    "masks": lambda: (UNet(), images(), torch.rand(2, 2, 1, 8, 8).round(), mask_loss),
    "table": lambda: (mlp(), rows(), classes(), None),
    "sound": lambda: (
        nn.Sequential(nn.Conv1d(1, 4, 9, 4), nn.ReLU(), nn.Flatten(), nn.LazyLinear(3)),
        rows(1, 64), classes(), None),
    "LSTM": lambda: (Recurrent(), tokens(), classes(), None),
    "language": lambda: (Language(), tokens(), tokens(), next_token_loss),
    "number": lambda: (
        nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 1)), rows(),
        torch.randn(2, 2), number_loss),
    "several labels": lambda: (mlp(), rows(), rows(3).sign().relu(), several_loss),
    "two inputs": lambda: (TwoInputs(), (images(), rows(5)), classes(), None),
    "two inputs by name": lambda: (
        TwoInputs(), {"row": rows(5), "picture": images()}, classes(), None),
    "tokens and a mask": lambda: (
        Masked(), {"input_ids": tokens(), "attention_mask": tokens() * 0 + 1},
        classes(), None),
    "logits in a dict": lambda: (
        Returning(lambda x: {"features": x, "logits": x * 2}), rows(), classes(), None),
    "out in a dict": lambda: (
        Returning(lambda x: {"out": x * 2, "aux": x}), rows(), classes(), None),
    "the second of a tuple": lambda: (
        Returning(lambda x: (x, x * 2)), rows(), classes(), second_loss),
    "group norm": lambda: (group_norm(), images(), classes(), None),
    "tied weights": lambda: (tied(), rows(), classes(), None),
    "last layer only": lambda: (last_layer_only(), rows(), classes(), None),
    "low rank": lambda: (mlp(LowRank(nn.Linear(6, 8))), rows(), classes(), None),
}  # fmt: skip
WHOLE = {"LSTM", "language", "tokens and a mask"}


def case(name):
    torch.manual_seed(3)
    model, inputs, labels, loss = MODELS[name]()
    model(torch.zeros(1, 1, 64)) if name == "sound" else None  # its size is lazy

    def precise(each):
        return each.double() if each.is_floating_point() else each

    if isinstance(inputs, tuple):
        inputs = tuple(map(precise, inputs))
    elif isinstance(inputs, dict):
        inputs = {n: precise(each) for n, each in inputs.items()}
    else:
        inputs = precise(inputs)
    return model.double(), inputs, precise(labels), loss or per_example_loss


def of_victim(inputs, v):
    """What one victim gives to its own model: arguments, and those by name."""
    if isinstance(inputs, dict):
        return (), {name: each[v] for name, each in inputs.items()}
    return tuple(e[v] for e in (inputs if isinstance(inputs, tuple) else (inputs,))), {}


def by_hand(model, inputs, labels, loss):
    """Each victim's gradient, by name: one `backward` of a copy on its inputs."""
    found = []
    for v in range(len(labels)):
        own = copy.deepcopy(model)
        args, options = of_victim(inputs, v)
        result = own(*args, **options)
        losses = loss(lambda x, result=result: result, labels[v] * 0, labels[v])
        losses.mean().backward()
        found.append({n: p.grad for n, p in own.named_parameters() if p.requires_grad})
    return {n: torch.stack([each[n] for each in found]) for n in found[0]}


@pytest.mark.parametrize("name", MODELS)
def test_gradients_are_those_of_the_model_itself(name):
    model, inputs, labels, loss = case(name)
    expected = by_hand(model, inputs, labels, loss)
    before = copy.deepcopy(model.state_dict())
    seen = observe(model, inputs, labels, loss=loss)
    assert list(seen.shared) == list(expected)
    for parameter, term in seen.shared.dense().items():
        torch.testing.assert_close(
            term, expected[parameter], rtol=1e-6, atol=1e-9, msg=parameter
        )
    assert all(torch.equal(before[n], v) for n, v in model.state_dict().items())
    assert seen.discrete == (name in WHOLE)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.filterwarnings("ignore::precode_lib.federated.VacuousGradientWarning")
def test_each_is_searched_or_the_search_says_what_to_do_instead(name):
    model, inputs, labels, loss = case(name)
    seen = observe(model, inputs, labels, loss=loss)
    recipe = Recipe(labels=known_labels, iterations=2)

    def begin():
        return Search(seen, recipe, generator=torch.Generator().manual_seed(0))

    if name in WHOLE:
        with pytest.raises(ValueError, match="whole numbers, such as tokens"):
            begin()
        return
    search = begin()
    assert all(step.objective.isfinite().all() for step in search)
    found = search.result
    if seen.packing is None:
        assert found.images.shape == inputs.shape
        return
    pieces, given = found.pieces, inputs
    if isinstance(inputs, dict):
        assert list(pieces) == list(inputs)
        pieces, given = pieces.values(), inputs.values()
    assert [p.shape for p in pieces] == [g.shape for g in given]


@pytest.mark.parametrize("name", ["LSTM", "language", "two inputs", "logits in a dict"])
def test_each_trains_locally_and_clips_by_example(name):
    model, inputs, labels, loss = case(name)
    seen = observe(model, inputs, labels, loss=loss, local=LocalTraining(2, 0.1))
    assert seen.shared.num_victims == 2

    def step(capture, images, labels, *, noise=None):
        generator = torch.Generator().manual_seed(0)
        options = {"clip_norm": 1e9, "noise_multiplier": 0.0, "generator": generator}
        return dp_sgd_step(capture, images, labels, noise=noise, **options)

    clipped = observe(model, inputs, labels, loss=loss, client_step=step)
    expected = by_hand(model, inputs, labels, loss)
    for parameter, term in clipped.shared.dense().items():
        torch.testing.assert_close(term, expected[parameter], rtol=1e-6, atol=1e-9)


def test_tokens_that_a_batch_mixes_are_taken_victim_by_victim():
    class Mixed(Recurrent):
        def forward(self, tokens):
            deep = self.table(tokens).mean(1)
            return self.out((deep - deep.mean(0))[:, :5])

    torch.manual_seed(0)
    model, inputs, labels = Mixed().double(), tokens(), classes()
    del model.lstm
    expected = by_hand(model, inputs, labels, per_example_loss)
    seen = observe(model, inputs, labels)
    for parameter, term in seen.shared.dense().items():
        torch.testing.assert_close(term, expected[parameter])


def test_what_has_no_logits_is_refused_and_told_how_a_loss_gets_them():
    model = Returning(lambda x: (x, x * 2))
    with pytest.raises(TypeError, match=r"got tuple.* give a `loss` of your own"):
        observe(model, rows(), classes())


def test_a_model_of_several_inputs_that_gets_one_says_how_to_give_all():
    with pytest.raises(ValueError, match=r"missing 1 .*'row'.* tuple .* dict by their"):
        observe(TwoInputs(), images(), classes())


class TestPacking:
    def test_a_row_holds_all_inputs_and_gives_them_back(self):
        inputs = {"a": torch.rand(2, 3, 4, 5), "b": torch.randint(9, (2, 3, 2)),
                  "c": torch.rand(2, 3)}  # fmt: skip
        packing = Packing.of(inputs)
        again = packing.unpack(packing.pack(inputs))
        assert list(again) == list(inputs)
        for name, each in inputs.items():
            assert torch.equal(again[name], each)
            assert again[name].dtype == each.dtype

    def test_a_copy_of_the_model_takes_rows_and_the_model_does_not(self):
        model, inputs = TwoInputs(), (images(), rows(5))
        packing = Packing.of(inputs)
        copied = copy.deepcopy(packed(model, packing))
        flat = packing.pack(inputs).flatten(0, 1)
        expected = model(*(each.flatten(0, 1) for each in inputs))
        torch.testing.assert_close(copied(flat), expected)
        assert list(copied.state_dict()) == list(model.state_dict())
        assert not model._forward_pre_hooks
        with pytest.raises(ValueError, match=r"rows \(N, 197\), got \(4, 3\)"):
            copied(torch.zeros(4, 3))

    def test_each_input_has_a_box_of_its_own_or_none(self):
        inputs = {"picture": PHOTOS.normalise(torch.rand(2, 1, 3, 8, 8)),
                  "row": 100 * torch.randn(2, 1, 5)}  # fmt: skip
        options = {"normalisation": {"picture": PHOTOS}}
        seen = observe(TwoInputs(), inputs, classes()[:, :1], **options)
        boxed = Recipe(labels=known_labels, iterations=3, boxed=True, signed=True)
        search = Search(seen, boxed, generator=torch.Generator().manual_seed(0))
        for _ in search:
            pass
        pixels = PHOTOS.denormalise(search.result.pieces["picture"])
        assert pixels.min() > -1e-5
        assert pixels.max() < 1 + 1e-5
        assert search.result.pieces["row"].abs().max() > 0
        with pytest.raises(ValueError, match="`pieces` has them apart"):
            _ = search.result.pixels
        rows_of_pixels = seen.normalisation.denormalise(seen.packing.pack(inputs))
        again = seen.packing.unpack(rows_of_pixels)
        torch.testing.assert_close(
            again["picture"], PHOTOS.denormalise(inputs["picture"])
        )
        torch.testing.assert_close(again["row"], inputs["row"])

    @pytest.mark.parametrize(
        ("inputs", "message"),
        [
            ((images(), rows(5)[:1]), r"same victims and ex.*\(1, 2\), \(2, 2\)"),
            ((images(), 3), r"input 1 must be a Tensor \(V, B, ...\), got int"),
            ((), "several inputs are a tuple"),
            (
                (torch.randn(2, 2, 5), torch.full((2, 2, 1), 2**24 + 1)),
                "cannot hold whole numbers up to 16777217: .* float64",
            ),
        ],
    )
    def test_inputs_that_do_not_belong_together_are_refused(self, inputs, message):
        with pytest.raises((TypeError, ValueError), match=message):
            observe(TwoInputs(), inputs, classes())

    def test_a_normalisation_that_fits_no_input_is_refused(self):
        with pytest.raises(TypeError, match="several inputs need several normalisat"):
            observe(TwoInputs(), (images(), rows(5)), classes(), normalisation=PHOTOS)
