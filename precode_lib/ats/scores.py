"""What a policy costs and brings, without training or attacking: the two ATS scores.

Gao et al. 2021, section 4.2. Both are proxies: replications found no correlation of the
privacy score with the quality of reconstructions (Taboada Warmerdam et al. 2022), so
rank with it if you like, but attack before you trust.
"""

from collections.abc import Callable

import torch
from torch import Generator, Tensor, nn

from precode_lib.ats.policies import Transform, check_pixels
from precode_lib.basics.validation import check_count, check_labels
from precode_lib.bottleneck import noise_from, num_classes, quiet
from precode_lib.data import Normalisation
from precode_lib.gradients import (
    Capture,
    Gradients,
    first_parameter,
    layer_cosines,
    mixes_examples,
)

NUM_INTERVALS = 20  # from noise to the transformed picture
EIGENVALUE_OFFSET = 1e-5  # k: keeps logarithm and inverse finite

# Gao et al. accept a score of -85 or more. Their batches hold 100 CIFAR-100 pictures
# without those whose class was there before: 63.4 on average. The score of N unrelated
# pictures is -N, so what carries over to other N is the score for each picture.
ACCURACY_FLOOR = -85 / 63.4

# What one pass may hold of layers' inputs, outputs and gradients, about, in bytes.
# Twice the cache of a small machine: beyond that, larger passes are not faster.
PASS_BYTES = 64 * 2**20

Similarity = Callable[[Gradients, Gradients], Tensor]  # V victims twice -> (V,)


def mean_layer_cosine(a: Gradients, b: Gradients) -> Tensor:
    """The mean over parameter tensors of their cosines, as the reference has it: (V,).

    `gradients.cosine_similarity` is the one cosine of all entries of the paper.
    """
    return layer_cosines(a, b).mean(1)


def similarity_profile(
    model: nn.Module,
    pixels: Tensor,
    labels: Tensor,
    transform: Transform,
    *,
    normalisation: Normalisation,
    generator: Generator,
    num_intervals: int = NUM_INTERVALS,
    similarity: Similarity = mean_layer_cosine,
    chunk_bytes: int = PASS_BYTES,
) -> Tensor:
    """How alike the gradients become on the way from noise to T(x): (N, K + 1).

    Column i is the similarity of the gradients at (1 - i/K) noise + i/K T(x) and at
    T(x); the last is 1, but for parameters whose gradient is zero. The noise is drawn
    before the transformation, so that equal seeds compare policies on equal noise.
    The model must be in evaluation mode; it is left as it is.

    Args:
        pixels: (N, C, H, W) in [0, 1] or uint8, before the transformation.
        labels: (N,).
        transform: a policy, or any (pixels, generator) -> pixels.
    """
    check_pixels(pixels)
    check_count(num_intervals, "num_intervals")
    _check_mode(model)
    like = first_parameter(model)
    drawn = torch.rand(pixels.shape, generator=generator, device=generator.device)
    noise = normalisation.normalise(drawn.to(like))
    images = normalised(transform(pixels, generator), normalisation, like)
    check_labels(labels, len(pixels), num_classes(model, images[:1]))
    labels = labels.to(like.device)
    capture = Capture(model)
    step = _pictures_within(chunk_bytes, capture, images[:1], labels[:1], num_intervals)
    parts = (slice(i, i + step) for i in range(0, len(images), step))
    return torch.cat(
        [
            _profile(
                capture, noise[p], images[p], labels[p],
                generator, num_intervals, similarity,
            )
            for p in parts
        ]
    )  # fmt: skip


def privacy_scores(
    model: nn.Module,
    pixels: Tensor,
    labels: Tensor,
    transform: Transform,
    **options,
) -> Tensor:
    """The privacy score of each picture: (N,), lower is more private.

    The area under `similarity_profile` (which explains the options) by the trapezoid
    rule. The paper writes a left sum, `profile[:, :-1].mean(1)`. The reference scales
    by the distance of noise and picture and divides by it again.
    """
    profile = similarity_profile(model, pixels, labels, transform, **options)
    return torch.trapezoid(profile, dim=1) / (profile.shape[1] - 1)


def accuracy_score(
    model: nn.Module,
    pixels: Tensor,
    transform: Transform,
    *,
    normalisation: Normalisation,
    generator: Generator,
) -> float:
    """How differently an untrained model sees N transformed pictures; higher is better.

    -sum of ln(v + k) + 1/(v + k) over the eigenvalues v of the correlation matrix of
    the pictures' Jacobians (Mellor et al. 2021). At most about -N, reached where no two
    are correlated. The paper writes this with the other sign and divided by N; sign
    and size here are those of the reference's code and of its threshold.

    Args:
        model: randomly initialised, in evaluation mode; it is left as it is.
        pixels: (N, C, H, W) in [0, 1] or uint8, two at least, before the
            transformation.
    """
    check_pixels(pixels)
    _check_mode(model)
    if len(pixels) < 2:
        raise ValueError("a correlation needs two pictures at least, got 1.")
    like = first_parameter(model)
    images = normalised(transform(pixels, generator), normalisation, like)
    # eigvalsh: the matrix is symmetric. (np.linalg.eig finds complex eigenvalues.)
    eigenvalues = torch.linalg.eigvalsh(
        _correlations(_jacobians(model, images, generator))
    )
    shifted = eigenvalues.clamp_min(0) + EIGENVALUE_OFFSET
    return -(shifted.log() + 1 / shifted).sum().item()


def normalised(pixels: Tensor, normalisation: Normalisation, like: Tensor) -> Tensor:
    """Pixels, uint8 or in [0, 1], as images of the type and on the device of `like`."""
    scale = 1 if pixels.is_floating_point() else 255
    return normalisation.normalise(pixels.to(like) / scale)


def _profile(
    capture: Capture,
    noise: Tensor,
    images: Tensor,
    labels: Tensor,
    generator: Generator,
    num_intervals: int,
    similarity: Similarity,
) -> Tensor:
    """All points of n pictures as victims of one call, point by point: (n, K + 1)."""
    count = len(images)
    shares = torch.linspace(0, 1, num_intervals + 1).to(images)
    shares = shares.view(-1, 1, 1, 1, 1)
    points = ((1 - shares) * noise + shares * images).flatten(0, 1)
    labels = labels.repeat(num_intervals + 1, *[1] * (labels.dim() - 1))
    found = capture(
        points[:, None], labels[:, None], noise=generator, create_graph=False
    )
    ends = torch.arange(len(points) - count, len(points), device=images.device)
    target = found.take(ends.repeat(num_intervals + 1))
    return similarity(found, target).view(-1, count).T


def _pictures_within(
    num_bytes: int, capture: Capture, image: Tensor, label: Tensor, num_intervals: int
) -> int:
    """How many pictures with all their points fit, about; one at least."""
    one = image[:, None], label[:, None]
    with quiet(capture.model):
        terms = capture(*one, create_graph=False).values()
    tensors = [t if isinstance(t, Tensor) else t.right for t in terms]
    held = 2 * sum(t.numel() * t.element_size() for t in tensors)  # and the targets
    # Forward and backward keep each input and output about twice.
    held += 2 * capture.activation_bytes(*one)
    return max(1, num_bytes // (held * (num_intervals + 1)))


def _jacobians(model: nn.Module, images: Tensor, generator: Generator) -> Tensor:
    """The slope of the sum of all logits at every picture: (N, C * H * W)."""
    images = images.detach().requires_grad_()
    with noise_from(generator), torch.enable_grad():
        (slopes,) = torch.autograd.grad(model(images).sum(), images)
    return slopes.flatten(1).double()


def _correlations(rows: Tensor) -> Tensor:
    """Pearson's correlation of every two rows, (N, D) -> (N, N)."""
    centred = rows - rows.mean(1, keepdim=True)
    norms = centred.norm(dim=1, keepdim=True)
    num_flat = int((norms == 0).sum())
    if num_flat:
        raise ValueError(
            f"the model's output does not depend on {num_flat} of {len(rows)} "
            "pictures, so their correlation is undefined; are its units dead?"
        )
    unit = centred / norms
    return unit @ unit.T


def _check_mode(model: nn.Module) -> None:
    if mixes_examples(model):
        raise ValueError(
            "the model normalises with the statistics of its batch, which would mix "
            "the pictures; call model.eval() first, as the scores are defined."
        )
