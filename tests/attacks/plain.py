"""Models of every kind, and observations of them made by plain autograd alone."""

import torch
from torch import nn
from torch.nn import functional as F
from torchvision.models.vision_transformer import VisionTransformer

from precode_lib.federated import Observation
from precode_lib.gradients import concatenate, from_list


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def fresh(make, *args, seed=0, **options):
    """A model in float64 whose weights come from this seed alone."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return make(*args, **options).double()


def drawn(*shape, seed=1):
    return torch.rand(shape, generator=seeded(seed), dtype=torch.float64)


def words(*shape, size=40, seed=1):
    return torch.randint(size, shape, generator=seeded(seed))


def watched(model, examples, labels, normalisation=None, **options):
    """What a server sees of clients (V, B, ...) that call `backward` themselves."""
    parts = []
    for x, y in zip(examples, labels, strict=True):
        model.zero_grad()
        F.cross_entropy(model(x).flatten(0, -2), y.flatten()).backward()
        named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
        names, tensors = zip(*named, strict=True)
        parts.append(from_list(names, [p.grad for p in tensors]))
    return Observation(
        shared=concatenate(parts),
        model=model,
        image_shape=examples.shape[2:],
        num_examples=examples.shape[1],
        num_classes=None,
        normalisation=normalisation,
        **options,
    )


class Adapted(nn.Module):
    """A frozen Linear with a LoRA adapter written by hand, as bare matrices."""

    def __init__(self, size, width, rank=4, *, is_fresh=False):
        super().__init__()
        self.frozen = nn.Linear(size, width).requires_grad_(False)
        self.A = nn.Parameter(torch.randn(rank, size))
        self.B = nn.Parameter(torch.randn(width, rank) * (not is_fresh))

    def forward(self, x):
        return self.frozen(x) + x @ self.A.T @ self.B.T


def lora(**options):
    return nn.Sequential(
        nn.Flatten(), Adapted(192, 24, **options), nn.ReLU(), nn.Linear(24, 10)
    )


class Column(nn.Module):
    """A x with x a column, and its bias added apart."""

    def __init__(self):
        super().__init__()
        self.A = nn.Parameter(torch.randn(16, 192) / 14)
        self.b = nn.Parameter(torch.randn(16, 1))
        self.head = nn.Linear(16, 10)

    def forward(self, x):
        return self.head((self.A @ x.flatten(1)[..., None] + self.b).squeeze(2).relu())


class Turned(nn.Module):
    """A Linear whose weight lies the other way round, as some transformers have it."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(192, 16) / 14)
        self.bias = nn.Parameter(torch.randn(16))
        self.head = nn.Linear(16, 10)

    def forward(self, x):
        hidden = torch.addmm(self.bias, x.flatten(1), self.weight)
        return self.head(hidden.relu())


class TwoInputs(nn.Module):
    """A picture 3x8x8 and five numbers of a table, packed one behind the other."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.table = nn.Linear(5, 6)
        self.head = nn.Linear(4 * 36 + 6, 10)

    def forward(self, packed):
        picture, row = packed[:, :192].view(-1, 3, 8, 8), packed[:, 192:]
        seen = [self.conv(picture).flatten(1), self.table(row)]
        return self.head(torch.cat(seen, 1).relu())


class Twice(nn.Module):
    """A first layer whose weight is used again further on."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(192, 192)
        self.head = nn.Linear(192, 10)

    def forward(self, x):
        hidden = self.first(x.flatten(1)).relu()
        return self.head(self.first(hidden).relu())


def vit(*, head=0.02, layers=2, **options):
    model = VisionTransformer(
        image_size=32,
        patch_size=8,
        num_layers=layers,
        num_heads=2,
        hidden_dim=48,
        mlp_dim=32,
        num_classes=10,
        **options,
    )
    nn.init.normal_(model.heads.head.weight, std=head)
    return model


class Positions(nn.Module):
    """A small vision transformer as others write it: unfolded patches, nn.Embedding."""

    def __init__(self, *, reads_first=False):
        super().__init__()
        self.reads_first = reads_first
        self.proj = nn.Linear(192, 48)
        self.places = nn.Embedding(16, 48)
        self.block = nn.TransformerEncoderLayer(48, 2, 32, 0.0, batch_first=True)
        self.head = nn.Linear(48, 10)

    def forward(self, x):
        patches = F.unfold(x, 8, stride=8).mT
        tokens = self.proj(patches) + self.places(torch.arange(16))
        tokens = self.block(tokens)
        return self.head(tokens[:, 0] if self.reads_first else tokens.mean(1))


class Recurrent(nn.Module):
    """An LSTM on tokens."""

    def __init__(self, padding=None):
        super().__init__()
        self.table = nn.Embedding(40, 24, padding_idx=padding)
        self.lstm = nn.LSTM(24, 12, batch_first=True)
        self.head = nn.Linear(12, 4)

    def forward(self, tokens):
        return self.head(self.lstm(self.table(tokens))[0][:, -1])


class Writer(nn.Module):
    """A small causal transformer that predicts the next token."""

    def __init__(self, *, width=48, size=40, tied=False):
        super().__init__()
        self.table = nn.Embedding(size, width)
        self.places = nn.Parameter(torch.randn(1, 12, width) / 10)
        layer = nn.TransformerEncoderLayer(width, 2, 32, 0.0, batch_first=True)
        self.blocks = nn.TransformerEncoder(layer, 2)
        self.out = nn.Linear(width, size, bias=False)
        if tied:
            self.out.weight = self.table.weight

    def forward(self, tokens):
        length = tokens.shape[1]
        mask = torch.full((length, length), -torch.inf).triu(1).to(self.places)
        hidden = self.table(tokens) + self.places[:, :length]
        return self.out(self.blocks(hidden, mask=mask))


class Mixed(nn.Module):
    """Nine words, the kind of each, and five numbers, packed into one row."""

    def __init__(self):
        super().__init__()
        self.writer, self.kinds = Writer(), nn.Embedding(3, 40)
        self.numbers = nn.Linear(5, 40)

    def forward(self, row):
        tokens, kinds, numbers = row.split([9, 9, 5], 1)
        written = self.writer(tokens.long()) + self.kinds(kinds.long())
        return written + self.numbers(numbers)[:, None]
