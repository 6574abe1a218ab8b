"""What the search of an audit finds beside breaching's, in the same processor time.

    python benchmarks/audits.py --seconds 30        a quarter of an hour

Both attack the same clients' gradients with known labels: ours all at once with the
search that `precode audit` calls strong, breaching's `invertinggradients` one client
after the other, each with as many seconds of the processor as the others. Needs
`pip install breaching`.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
from cases import Scene, our_steps
from peer import Peer
from torch import Tensor, nn

from precode_lib.attacks import STRONG, Search
from precode_lib.data import CIFAR10, Pictures, victims
from precode_lib.federated import observe
from precode_lib.metrics import Scores, score
from precode_lib.models import lenet


def resnet(training: bool) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        from torchvision.models import resnet18

        torch.manual_seed(0)
        return resnet18(num_classes=10).train(training)

    return make


def small() -> nn.Module:
    return lenet(generator=torch.Generator().manual_seed(0))


# name -> (model, side of the pictures)
MODELS = {
    "LeNet, 32 x 32": (small, 32),
    "resnet18 in evaluation mode, 64 x 64": (resnet(False), 64),
    "resnet18 in training mode, 64 x 64": (resnet(True), 64),
}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=30.0, help="for each client")
    parser.add_argument("--clients", type=int, default=4)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    for name, (make, size) in MODELS.items():
        for line in compare(name, make(), size, options):
            print(line, flush=True)


def compare(name: str, model: nn.Module, size: int, options) -> Iterator[str]:
    pictures = victims("photos", options.clients, size=size)
    scene = heard(model, pictures)
    ours, peer = paces(scene)
    yield f"{name}: a step of a client takes breaching {peer / ours:.1f} times as long"
    found = searched(scene, options.seconds * options.clients)
    yield f"  ours      {told(score(pictures.pixels, found))}"
    rows = [attacked(scene, v, options.seconds, peer) for v in range(options.clients)]
    yield f"  breaching {told(score(pictures.pixels, torch.cat(rows)))}"


def heard(model: nn.Module, pictures: Pictures) -> Scene:
    """What the clients send, in the words of the other benchmark."""
    images = CIFAR10.normalise(pictures.pixels)[:, None]
    labels = pictures.labels[:, None]
    seen = observe(model, images, labels, normalisation=CIFAR10)
    start = torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    return Scene(model, labels, start, seen)


def paces(scene: Scene) -> tuple[float, float]:
    """Seconds of the processor for one step of one client: ours, breaching's."""
    steps, peer = our_steps(scene), Peer(scene)
    next(steps), peer.run(1)
    rounds = []
    for _ in range(3):
        ours = timed(lambda: next(steps)) / scene.seen.num_victims
        rounds.append((ours, timed(lambda: peer.run(4)) / 4))
    return tuple(sorted(side)[1] for side in zip(*rounds, strict=True))


def timed(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def searched(scene: Scene, seconds: float) -> Tensor:
    """Pixels (V, C, H, W) of the strong search, as many steps as the time allows."""
    generator = torch.Generator().manual_seed(0)
    probe = Search(scene.seen, replace(STRONG, iterations=2), generator=generator)
    pace = timed(lambda: next(probe))
    recipe = replace(STRONG, iterations=max(5, int(seconds / pace)))
    search = Search(scene.seen, recipe, generator=torch.Generator().manual_seed(0))
    for _ in search:
        pass
    return search.result.pixels[:, 0]


def attacked(scene: Scene, victim: int, seconds: float, pace: float) -> Tensor:
    """Pixels (1, C, H, W) of breaching's attack on one client."""
    peer = Peer(scene, victim)
    peer.run(max(10, int(seconds / pace)))
    return CIFAR10.denormalise(peer.found.detach().cpu()).clamp(0, 1)


def told(scores: Scores) -> str:
    hits, alike = int(scores.success.sum()), sorted(scores.ssim.tolist())
    best = " ".join(f"{s:.2f}" for s in alike)
    return f"{hits} of {len(scores)} recovered, SSIM {best}"


if __name__ == "__main__":
    sys.exit(main())
