"""The paper's protocol as data, at three scales.

`PAPER` is Scheliga et al. 2022, section 4. `LITE` is the same walk with fewer victims,
iterations and pictures: an afternoon on two cores. `SMOKE` runs every kind of cell
once, on the embedded photographs, in about a minute; its numbers mean nothing.
"""

from dataclasses import dataclass, replace

from precode_lib.experiments.cells import BEFORE_FC, Setup
from precode_lib.experiments.kinds.adaptive import AdaptiveCell
from precode_lib.experiments.kinds.ats import AtsCell
from precode_lib.experiments.kinds.attack import AttackCell
from precode_lib.experiments.kinds.training import TrainingCell

# Iterations and patience of the paper go together; other scales keep their ratio.
_ITERATIONS, _PATIENCE = 7_000, 1_200


@dataclass(frozen=True)
class Scale:
    """How much of the protocol is run.

    Args:
        seeds: of weights, noise and starts; every cell is run once for each.
        victims: pictures per attack.
        iterations: of each search.
        epochs: of each training.
        marks: the epochs after which trained models are attacked (the paper's Fig. 7).
        train_pictures: to learn from; None for all there are.
        test_pictures: to test with; None for all there are.
        width: of the MLPs' hidden layers.
        ats_width: of the ResNet that ATS is tried on.
        ats_victims: pictures per ATS attack.
        ats_iterations: of each ATS search.
        more_iterations: of a search that is given more time, to see whether it helps.
        more_epochs: of a training that is given more time, likewise.
        moments: epochs after which attackers who know the defense try.
        strong_iterations: of each of their searches.
        batch: pictures that share one gradient, where several do.
        stand_in: the data set that takes the place of all others, if any.
    """

    name: str
    seeds: tuple[int, ...]
    victims: int
    iterations: int
    epochs: int
    marks: tuple[int, ...]
    train_pictures: int | None
    test_pictures: int | None
    width: int = 1024
    ats_width: int = 64
    ats_victims: int = 100
    ats_iterations: int = 4_800
    more_iterations: int = _ITERATIONS
    more_epochs: int = 50
    moments: tuple[int, ...] = (1, 10, 50)
    strong_iterations: int = 30
    batch: int = 8
    stand_in: str | None = None

    @property
    def patience(self) -> int:
        """Steps without progress after which a search ends, as a share of all."""
        return _patience(self.iterations)

    def setup(self, dataset: str, model: str, defense: str, **changes) -> Setup:
        """A setup of the paper at this scale, with seed 0."""
        sizes = {"smlp": self.width, "dmlp": self.width, "resnet": self.ats_width}
        width = sizes.get(model)  # else the model's usual one
        setup = Setup(self.stand_in or dataset, model, defense, width=width)
        return replace(setup, **changes)

    def training(self, setup: Setup) -> TrainingCell:
        """The training of a setup."""
        return TrainingCell(
            setup,
            epochs=self.epochs,
            train_pictures=self.train_pictures,
            test_pictures=self.test_pictures,
        )

    def attack(self, setup: Setup, attack: str = "iga", **changes) -> AttackCell:
        """An attack on a setup; with `epoch`, on the model trained so far."""
        if changes.get("epoch", 0) > 0:
            changes["training"] = self.training(setup)
        usual = AttackCell(
            setup,
            attack,
            victims=self.victims,
            iterations=self.iterations,
            patience=self.patience,
        )
        return replace(usual, **changes)

    def longer_attack(self, setup: Setup, **changes) -> AttackCell:
        """An attack whose search is given more time."""
        steps = self.more_iterations
        patience = _patience(steps)
        return self.attack(setup, iterations=steps, patience=patience, **changes)

    def longer_training(self, setup: Setup) -> TrainingCell:
        """The training up to `more_epochs`, or the usual one if it is longer."""
        epochs = max(self.epochs, self.more_epochs)
        return replace(self.training(setup), epochs=epochs)

    def adaptive(self, setup: Setup, attack: str, **changes) -> AdaptiveCell:
        """An attack by whoever knows the defense; with `epoch`, on a trained model.

        From the longer training, where no other is said.
        """
        if changes.get("epoch", 0) > 0:
            changes.setdefault("training", self.longer_training(setup))
        usual = AdaptiveCell(
            setup, attack, victims=self.victims, iterations=self.strong_iterations
        )
        return replace(usual, **changes)

    def ats(self, policy: str, *, adaptive: bool) -> AtsCell:
        """An attack on pictures under a policy, on an untrained ResNet."""
        return AtsCell(
            self.setup("cifar100", "resnet", "none"),
            policy,
            adaptive,
            victims=self.ats_victims,
            iterations=self.ats_iterations,
        )


def _patience(iterations: int) -> int:
    return round(iterations * _PATIENCE / _ITERATIONS)


PAPER = Scale(
    name="paper",
    seeds=(0, 1, 2),
    victims=128,
    iterations=_ITERATIONS,
    epochs=300,
    marks=(0, 1, 50),
    train_pictures=None,
    test_pictures=None,
)
LITE = Scale(
    name="lite",
    seeds=(0, 1, 2),
    victims=16,
    iterations=2_000,
    epochs=10,
    marks=(0, 1, 10),
    train_pictures=10_000,
    test_pictures=2_000,
    ats_width=16,
    ats_victims=8,
    ats_iterations=600,
)
SMOKE = Scale(
    name="smoke",
    seeds=(0,),
    victims=4,
    iterations=12,
    epochs=2,
    marks=(0, 1, 2),
    train_pictures=40,
    test_pictures=20,
    width=32,
    ats_width=4,
    ats_victims=2,
    ats_iterations=8,
    more_iterations=24,
    more_epochs=3,
    moments=(1, 3),
    strong_iterations=2,
    batch=2,
    stand_in="photos",
)
SCALES = {scale.name: scale for scale in (SMOKE, LITE, PAPER)}

DEFENSES = ("none", "ng-2", "ng-3", "gc", "precode")
FEW_DEFENSES = ("none", "ng-2", "ng-3", "precode")  # the paper dropped gc after Table 2
CODE_SIZES = (64, 128, 256, 512)
BETAS = (1e-1, 1e-2, 1e-3, 1e-4)
# Supplement, section 4: behind each of four hidden layers, then more than one.
PLACEMENTS = (
    ("after features.activation1",),
    ("after features.activation2",),
    ("after features.activation3",),
    BEFORE_FC,
    ("after features.activation3", "before fc"),
    ("after features.activation2", "after features.activation3", "before fc"),
    (
        "after features.activation1",
        "after features.activation2",
        "after features.activation3",
        "before fc",
    ),
)
POLICIES = ("-1", "3-1-7", "43-18-18")
