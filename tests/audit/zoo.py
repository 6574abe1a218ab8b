"""Models as engineers have them, with examples, a loss, and what must come back."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from precode_lib.bottleneck import per_example_loss

TOKENS, PLACES, WIDTH = 60, 8, 16


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pictures(size: int = 32, count: int = 2, channels: int = 3) -> tuple:
    shape = count, channels, size, size
    return torch.randn(*shape, generator=seeded()), torch.arange(count)


@dataclass(frozen=True)
class Kept:
    """One model of the table.

    Args:
        make: the model, fresh; torch's global generator is seeded.
        examples: (inputs, labels).
        leaks: what comes back in closed form with proof: "picture", "row", "part",
            "tokens", "example"; or nothing of the example: None.
        verdict: of the closed forms alone.
        loss: of each example.
        trains: the mode of the model.
        searched: whether a search can be made: of tokens none can.
        features: whether the last layer's inputs come back.
        name: in the table.
    """

    make: Callable[[], nn.Module]
    examples: Callable[[], tuple] = pictures
    leaks: str | None = None
    verdict: str = "no verdict"
    loss: Callable = per_example_loss
    trains: bool = True
    searched: bool = True
    features: bool = True
    name: str = ""


def torchvision(name: str, **options) -> Callable[[], nn.Module]:
    def make():
        from torchvision.models import get_model

        return get_model(name, weights=None, num_classes=10, **options)

    return make


def drawn_head() -> nn.Module:
    made = torchvision("vit_b_16", image_size=32)()
    nn.init.normal_(made.heads.head.weight, std=0.02)
    return made


class UNet(nn.Module):
    """Down, up, and a way across: masks of one channel."""

    def __init__(self):
        super().__init__()
        self.down = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.middle = nn.Conv2d(8, 8, 3, padding=1)
        self.up = nn.ConvTranspose2d(8, 8, 2, stride=2)
        self.out = nn.Conv2d(11, 1, 3, padding=1)

    def forward(self, x):
        inner = self.up(torch.relu(self.middle(torch.relu(self.down(x)))))
        return self.out(torch.cat([inner, x], 1))


def masks() -> tuple:
    inputs, _ = pictures(16)
    return inputs, (inputs[:, :1] > 0).float()


def mask_loss(model, inputs, labels) -> Tensor:
    losses = F.binary_cross_entropy_with_logits(model(inputs), labels, reduction="none")
    return losses.flatten(1).mean(1)


def table() -> tuple:
    return torch.randn(3, 20, generator=seeded()), torch.tensor([0, 1, 0])


def ages() -> tuple:
    rows, _ = table()
    return rows, torch.rand(3, 1, generator=seeded(1))


def squared_loss(model, inputs, labels) -> Tensor:
    return (model(inputs) - labels).square().sum(1)


def several_labels() -> tuple:
    rows, _ = table()
    return rows, torch.randint(0, 2, (3, 5), generator=seeded(2)).float()


def several_loss(model, inputs, labels) -> Tensor:
    losses = F.binary_cross_entropy_with_logits(model(inputs), labels, reduction="none")
    return losses.sum(1)


def sound() -> tuple:
    return torch.randn(2, 1, 400, generator=seeded()), torch.tensor([0, 1])


def texts() -> tuple:
    tokens = torch.randint(1, TOKENS, (3, PLACES), generator=seeded())
    return tokens, torch.tensor([0, 1, 1])


class Recurrent(nn.Module):
    """Words, a memory, and what it makes of them at the end."""

    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(TOKENS, WIDTH)
        self.memory = nn.LSTM(WIDTH, WIDTH, batch_first=True)
        self.out = nn.Linear(WIDTH, 2)

    def forward(self, tokens):
        return self.out(self.memory(self.words(tokens))[0][:, -1])


class Transformer(nn.Module):
    """Words and places, one layer of attention."""

    def __init__(self, *, frozen: bool = False):
        super().__init__()
        self.words = nn.Embedding(TOKENS, WIDTH)
        self.places = nn.Parameter(0.1 * torch.randn(PLACES, WIDTH))
        self.layer = nn.TransformerEncoderLayer(
            WIDTH, 2, 32, dropout=0.0, batch_first=True
        )
        self.out = nn.Linear(WIDTH, 2)
        self.words.weight.requires_grad_(not frozen)

    def forward(self, tokens):
        return self.out(self.layer(self.words(tokens) + self.places).mean(1))


class TwoInputs(nn.Module):
    """A picture and a row of a table, together at the end."""

    def __init__(self):
        super().__init__()
        self.picture = nn.Conv2d(3, 4, 3, stride=2)
        self.row = nn.Linear(5, 8)
        self.out = nn.Linear(4 * 7 * 7 + 8, 3)

    def forward(self, picture, row):
        both = self.picture(picture).flatten(1), self.row(row)
        return self.out(torch.relu(torch.cat(both, 1)))


def both() -> tuple:
    inputs, labels = pictures(16)
    return (inputs, torch.randn(2, 5, generator=seeded(3))), labels


def group_norm() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, bias=False), nn.GroupNorm(2, 8), nn.ReLU(),
        nn.Flatten(), nn.Linear(8 * 15 * 15, 10),
    )  # fmt: skip


class Tied(nn.Module):
    """The second layer is the first one, transposed."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(20, 12)
        self.out = nn.Linear(20, 2)

    def forward(self, x):
        hidden = torch.relu(self.first(x))
        return self.out(F.linear(hidden, self.first.weight.T))


def last_only() -> nn.Module:
    made = torchvision("resnet18")()
    for name, parameter in made.named_parameters():
        parameter.requires_grad_(name.startswith("fc."))
    return made.eval()


class Adapter(nn.Module):
    """A frozen layer and a low-rank change beside it, as after some rounds."""

    def __init__(self, layer: nn.Linear, *, is_new: bool = False, rank: int = 4):
        super().__init__()
        self.layer = layer.requires_grad_(False)
        self.lora_a = nn.Parameter(0.1 * torch.randn(rank, layer.in_features))
        start = torch.zeros if is_new else torch.randn
        self.lora_b = nn.Parameter(0.1 * start(layer.out_features, rank))

    def forward(self, x):
        return self.layer(x) + x @ self.lora_a.T @ self.lora_b.T


def adapted(*, is_new: bool = False) -> nn.Module:
    return nn.Sequential(
        Adapter(nn.Linear(20, 16), is_new=is_new), nn.ReLU(),
        Adapter(nn.Linear(16, 2), is_new=is_new),
    )  # fmt: skip


class AdaptedTransformer(nn.Module):
    """Frozen words and places; an adapter on what attention is about."""

    def __init__(self, rank: int):
        super().__init__()
        self.words = nn.Embedding(TOKENS, WIDTH).requires_grad_(False)
        self.register_buffer("places", 0.1 * torch.randn(PLACES, WIDTH))
        self.up = Adapter(nn.Linear(WIDTH, 32), rank=rank)
        self.out = nn.Linear(32, 2)

    def forward(self, tokens):
        x = torch.relu(self.up(self.words(tokens) + self.places))
        weights = torch.softmax(x @ x.mT, -1)
        return self.out((weights @ x).mean(1))


def tabular() -> nn.Module:
    return nn.Sequential(
        nn.Linear(20, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 2)
    ).eval()


def listening() -> nn.Module:
    return nn.Sequential(
        nn.Conv1d(1, 4, 9, stride=4), nn.ReLU(), nn.Flatten(), nn.Linear(392, 2)
    )


def regression() -> nn.Module:
    return nn.Sequential(nn.Linear(20, 16), nn.Tanh(), nn.Linear(16, 1))


def tagging() -> nn.Module:
    return nn.Sequential(nn.Linear(20, 16), nn.ReLU(), nn.Linear(16, 5))


ZOO = {
    "resnet18, training": Kept(torchvision("resnet18"), lambda: pictures(64)),
    "resnet18, evaluation": Kept(torchvision("resnet18"), trains=False),
    "mobilenet_v3_small": Kept(
        torchvision("mobilenet_v3_small"), lambda: pictures(64), trains=False
    ),
    "convnext_tiny, training": Kept(torchvision("convnext_tiny")),
    "vit_b_16, zero head": Kept(torchvision("vit_b_16", image_size=32)),
    "vit_b_16, drawn head": Kept(drawn_head, leaks="example", verdict="leaks"),
    "U-Net, masks": Kept(UNet, masks, loss=mask_loss, features=False),
    "tabular": Kept(tabular, table, "row", "leaks", trains=False),
    "sound": Kept(listening, sound),
    "LSTM": Kept(Recurrent, texts, "tokens", "leaks", searched=False),
    "transformer": Kept(Transformer, texts, "tokens", "leaks", searched=False),
    "regression": Kept(regression, ages, "row", "leaks", loss=squared_loss),
    "several labels": Kept(tagging, several_labels, "row", "leaks", loss=several_loss),
    "two inputs": Kept(TwoInputs, both, "part", "leaks"),
    "GroupNorm": Kept(group_norm),
    "tied": Kept(Tied, table, features=True),
    "last layer only": Kept(last_only, trains=False),
    "LoRA": Kept(adapted, table, "row", "leaks"),
    # A span of as many directions as there are words, and one of fewer.
    "LoRA of a transformer": Kept(
        lambda: AdaptedTransformer(12), texts, "tokens", "leaks", searched=False
    ),
    "LoRA of a transformer, thin": Kept(
        lambda: AdaptedTransformer(2), texts, searched=False
    ),
    "LoRA, fresh": Kept(lambda: adapted(is_new=True), table),
}
