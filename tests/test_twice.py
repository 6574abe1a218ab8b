"""Whatever torch offers can be attacked, or is refused by its name."""

import pytest
import torch
from torch import nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torch.nn.modules import (
    activation,
    batchnorm,
    dropout,
    instancenorm,
    loss,
    normalization,
    padding,
    pooling,
    rnn,
    upsampling,
)

from precode_lib.attacks import Recipe, Search, known_labels
from precode_lib.federated import LocalTraining, observe
from precode_lib.gradients import Capture, Swapped

FLAT, ROW, PLANE, VOLUME = (6,), (4, 6), (4, 6, 6), (4, 6, 6, 6)


def shape_of(name):
    """Of one example, by how many dimensions a layer's name speaks of."""
    return {"1": ROW, "2": PLANE, "3": VOLUME}.get(name[-2:-1], ROW)


class Attended(nn.Module):
    """Attention of a sequence to itself."""

    def __init__(self):
        super().__init__()
        self.own = nn.MultiheadAttention(6, 2, batch_first=True)

    def forward(self, x):
        return self.own(x, x, x)[0]


class First(nn.Module):
    """What a layer returns first."""

    def __init__(self, own):
        super().__init__()
        self.own = own

    def forward(self, x):
        return self.own(x)[0]


class Unpooled(nn.Module):
    """Pooled, and put back where the maxima were."""

    def __init__(self, dimensions):
        super().__init__()
        self.own = getattr(nn, f"MaxPool{dimensions}d")(2, return_indices=True)
        self.back = getattr(nn, f"MaxUnpool{dimensions}d")(2)

    def forward(self, x):
        return self.back(*self.own(x))


def layer(kind):
    """One of torch's layers, for examples of `shape_of` its name."""
    name = kind.__name__
    special = {
        "MultiheadAttention": Attended,
        "Threshold": lambda: nn.Threshold(0.1, 0.2),
        "GLU": lambda: nn.GLU(1),
        "Softmin": lambda: nn.Softmin(1),
        "Softmax": lambda: nn.Softmax(1),
        "LogSoftmax": lambda: nn.LogSoftmax(1),
        "GroupNorm": lambda: nn.GroupNorm(2, 4),
        "LayerNorm": lambda: nn.LayerNorm(6),
        "RMSNorm": lambda: nn.RMSNorm(6),
        "LocalResponseNorm": lambda: nn.LocalResponseNorm(2),
        "CrossMapLRN2d": lambda: nn.CrossMapLRN2d(2),
        "Upsample": lambda: nn.Upsample(scale_factor=2),
        "RNNCell": lambda: nn.RNNCell(6, 5),
        "GRUCell": lambda: nn.GRUCell(6, 5),
        "LSTMCell": lambda: First(nn.LSTMCell(6, 5)),
    }
    if name in special:
        return special[name]()
    if name.startswith("MaxUnpool"):
        return Unpooled(name[-2])
    if name in ("RNN", "GRU", "LSTM"):
        return First(kind(6, 5, batch_first=True))
    if "Pool" in name:
        options = {"output_size": 2} if "Fractional" in name else {}
        sizes = {"LP": (2, 2), "Adaptive": (2,)}
        return kind(*next((s for p, s in sizes.items() if name.startswith(p)), (2,)),
                    **options)  # fmt: skip
    if kind.__module__ in (batchnorm.__name__, instancenorm.__name__):
        return kind(4, affine=True)
    if "Pad" in name:
        return kind(1, 0.5) if name.startswith("Constant") else kind(1)
    if "UpsamplingN" in name or "UpsamplingB" in name:
        return kind(scale_factor=2)
    return kind()


FLAT_ONES = {"RNNCell", "GRUCell", "LSTMCell"}
PLANES = {"Softmax2d", "CrossMapLRN2d", "LocalResponseNorm", "GroupNorm"}
# What torch has that is no layer of its own, or wants to see its data first.
NO_LAYERS = {"RNNBase", "RNNCellBase", "SyncBatchNorm"}
KINDS = [
    getattr(module, name)
    for module in (
        *(activation, pooling, normalization, batchnorm, instancenorm, padding),
        *(upsampling, dropout, rnn),
    )
    for name in module.__all__
    if name not in NO_LAYERS and not name.startswith("Lazy")
]
REFUSED = {"CrossMapLRN2d"}


class Net(nn.Module):
    """A layer between a scale, which no rule serves, and a sum with weights."""

    def __init__(self, own):
        super().__init__()
        self.scale, self.own = nn.Parameter(torch.tensor([1.3])), own

    def forward(self, x):
        out = self.own(self.scale * x).flatten(1)
        return out * torch.linspace(1, 2, out.shape[1]).to(out)


def summed(model, x, y):
    return model(x).square().sum(1)


def examples(name, victims=2, batch=2):
    shape = FLAT if name in FLAT_ONES else PLANE if name in PLANES else shape_of(name)
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(victims, batch, *shape, generator=generator).double()
    return x.requires_grad_(), torch.zeros(victims, batch)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
def test_each_layer_of_torch_can_be_attacked_or_is_refused_by_name(kind, training):
    torch.manual_seed(0)
    model = Net(layer(kind)).double().train(training)
    x, y = examples(kind.__name__)
    capture = Capture(model, loss=summed)
    if kind.__name__ in REFUSED:
        with pytest.raises(ValueError, match="an attacker differentiates slopes"):
            capture(x, y)
        return
    # What is drawn anew in every pass has no fixed slope to compare with.
    torch.manual_seed(5)
    found = capture(x, y)
    size = sum(t.square().sum() for t in found.dense().values())
    (slope,) = torch.autograd.grad(size, x)
    assert slope.isfinite().all()
    is_random = training and ("Drop" in kind.__name__ or kind.__name__ == "RReLU")
    if is_random or "Fractional" in kind.__name__:
        return
    for v in range(len(x)):
        expected = torch.autograd.grad(
            summed(model, x[v], y).mean(), [*model.parameters()], allow_unused=True
        )
        for term, truth in zip(found.dense().values(), expected, strict=True):
            torch.testing.assert_close(term[v], truth)


LOSSES = {
    "CTCLoss": lambda out, y: F.ctc_loss(
        out.unflatten(1, (3, 2)).log_softmax(2).transpose(0, 1),
        torch.ones(len(out), 1).long(),
        torch.full((len(out),), 3),
        torch.ones(len(out)).long(),
        reduction="none",
    ),
    "CosineEmbeddingLoss": lambda out, y: F.cosine_embedding_loss(
        out, y, torch.ones(len(out)), reduction="none"
    ),
    "GaussianNLLLoss": lambda out, y: F.gaussian_nll_loss(
        out, y, out.exp(), reduction="none"
    ),
    "MarginRankingLoss": lambda out, y: F.margin_ranking_loss(
        out, y, y.sign(), reduction="none"
    ),
    "TripletMarginLoss": lambda out, y: F.triplet_margin_loss(
        out, y, y + 1, reduction="none"
    ),
    "TripletMarginWithDistanceLoss": lambda out, y: F.triplet_margin_with_distance_loss(
        out, y, y + 1, reduction="none"
    ),
    "BCELoss": lambda out, y: F.binary_cross_entropy(
        out.sigmoid(), y.sigmoid(), reduction="none"
    ),
    "NLLLoss2d": None,  # an old name
    "AdaptiveLogSoftmaxWithLoss": None,  # a layer, and so is the next
    "LinearCrossEntropyLoss": None,
}
CLASSES = {"NLLLoss", "CrossEntropyLoss", "MultiMarginLoss"}
SIGNS = {"SoftMarginLoss", "HingeEmbeddingLoss"}
REFUSED_LOSSES = {"CTCLoss", "MultiLabelMarginLoss"}


def of_torch(name):
    """One of torch's losses, of each example."""

    def measured(model, x, y):
        out = model(x)
        if name in LOSSES:
            losses = LOSSES[name](out, y)
        else:
            own = getattr(nn, name)(reduction="none")
            target = y[:, 0].abs().long() % 6 if name in CLASSES else y
            target = y.sign() if name in SIGNS else target
            if name == "MultiLabelMarginLoss":
                target = y.abs().long() % 6
            losses = own(out, target)
        return losses.reshape(len(x), -1).sum(1)

    return measured


@pytest.mark.parametrize("name", [n for n in loss.__all__ if LOSSES.get(n, n)])
def test_each_loss_of_torch_can_be_attacked_or_is_refused_by_name(name):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 6)).double()
    x, y = torch.randn(2, 1, 5).double().requires_grad_(), torch.randn(2, 1, 6).double()
    capture = Capture(model, loss=of_torch(name))
    if name in REFUSED_LOSSES:
        short = {"CTCLoss": "ctc_loss", "MultiLabelMarginLoss": "multilabel_margin"}
        with pytest.raises(ValueError, match=f"uses {short[name]}.* slopes"):
            capture(x, y)
        return
    size = sum(t.square().sum() for t in capture(x, y).dense().values())
    (slope,) = torch.autograd.grad(size, x)
    assert slope.isfinite().all()


@pytest.mark.parametrize("inplace", [False, True])
def test_the_second_slope_of_hardsigmoid_is_that_of_finite_differences(inplace):
    torch.manual_seed(0)
    model = Net(nn.Sequential(nn.Linear(6, 4), nn.Hardsigmoid(inplace))).double()
    capture = Capture(model, loss=summed)

    def size(x):
        return sum(t.square().sum() for t in capture(x, y).dense().values())

    x, y = 3 * torch.randn(2, 1, 6).double(), torch.zeros(2, 1)
    assert torch.autograd.gradcheck(size, x.requires_grad_())


@pytest.mark.parametrize("p", [1, 2])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("weight", [None, torch.tensor([1.0, 2.0, 0.5])])
def test_multi_margin_loss_in_other_words_is_the_same(p, reduction, weight):
    x, y = torch.randn(4, 3), torch.tensor([0, 2, 1, 1])
    options = {"p": p, "margin": 0.7, "weight": weight, "reduction": reduction}
    with Swapped():
        found = F.multi_margin_loss(x, y, **options)
        single = F.multi_margin_loss(x[0], y[0], **options)
    torch.testing.assert_close(found, F.multi_margin_loss(x, y, **options))
    torch.testing.assert_close(single, F.multi_margin_loss(x[0], y[0], **options))


class Once(torch.autograd.Function):
    """A function of one's own, whose author thought of one slope."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    @once_differentiable
    def backward(ctx, upstream):
        (x,) = ctx.saved_tensors
        return 3 * x**2 * upstream


class Curved(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, x):
        return self.b(Once.apply(self.a(x)))


@pytest.mark.parametrize("local", [None, LocalTraining(2, 0.1)])
def test_a_function_with_one_slope_is_observed_and_no_search_begins(local):
    rows, labels = torch.randn(2, 1, 4), torch.zeros(2, 1).long()
    seen = observe(Curved(), rows, labels, local=local)
    assert seen.health().silent_share == 0
    search = Search(
        seen, Recipe(labels=known_labels), generator=torch.Generator().manual_seed(0)
    )
    with pytest.raises(ValueError, match="an attacker differentiates slopes"):
        next(search)


@pytest.mark.parametrize("local", [None, LocalTraining(2, 0.1)])
@pytest.mark.parametrize("activation", [nn.Hardsigmoid, nn.Hardswish])
def test_a_search_goes_through_hard_activations(activation, local):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 9), activation(), nn.Linear(9, 3))
    images, labels = torch.randn(2, 1, 3, 2, 2), torch.tensor([[0], [2]])
    seen = observe(model, images, labels, local=local)
    recipe = Recipe(labels=known_labels, iterations=4)
    search = Search(seen, recipe, generator=torch.Generator().manual_seed(0))
    steps = [step.objective for step in search]
    assert (steps[-1] < steps[0]).all()


def test_the_swap_ends_with_the_pass_and_also_after_an_error():
    model = nn.Sequential(nn.Linear(4, 3), nn.Hardsigmoid())
    capture = Capture(model)
    capture(torch.randn(2, 1, 4, requires_grad=True), torch.zeros(2, 1).long())
    x = torch.randn(3, requires_grad=True)
    assert "Hardsigmoid" in type(F.hardsigmoid(x).grad_fn).__name__
    with pytest.raises(ValueError, match="labels"):
        capture(torch.randn(2, 1, 4, requires_grad=True), torch.full((2, 1), 7))
    assert "Hardsigmoid" in type(F.hardsigmoid(x).grad_fn).__name__
