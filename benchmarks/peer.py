"""The breaching package's own `invertinggradients` attack on the same victims.

It attacks one client at a time, so its cost per victim does not depend on how many
there are. `pip install breaching`, or `pip install -e .[peers]`.
"""

import contextlib
import io
import warnings
from types import SimpleNamespace

import torch
from cases import LR, PRIOR_WEIGHT, Scene

from precode_lib.data import CIFAR10
from precode_lib.gradients import to_list


class Peer:
    """Breaching's attacker, prepared for one victim of a scene."""

    def __init__(self, scene: Scene, victim: int = 0):
        breaching = _import()
        config = _config(breaching)
        weight = next(scene.model.parameters())
        setup = {"device": weight.device, "dtype": weight.dtype}
        self._attacker = breaching.attacks.prepare_attack(
            scene.model, torch.nn.CrossEntropyLoss(), config, setup
        )
        self._config, self._start = config, scene.start[victim]
        payload, self._shared = _protocol(scene, victim)
        self._models, self._labels, self._stats = self._attacker.prepare_attack(
            payload, self._shared
        )

    def run(self, iterations: int) -> list[float]:
        """One trial of the attack; returns the objective of every iteration.

        What it found, normalised, is then `found`, (1, C, H, W).
        """
        self._config.optim.max_iterations = iterations
        self._stats.clear()
        self.found = self._attacker._run_trial(
            self._models, self._shared, self._labels, self._stats, 0, self._start
        )
        return self._stats["Trial_0_Val"]


def _import():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its torch.jit.script is deprecated
        import breaching
    return breaching


def _config(breaching):
    """Its published preset, with our learning rate and weight of the prior."""
    quiet = contextlib.redirect_stdout(io.StringIO())  # it prints what it loads
    with quiet, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it uses hydra as of 1.1
        return breaching.get_attack_config(
            "invertinggradients",
            [
                f"optim.step_size={LR}",
                f"regularization.total_variation.scale={PRIOR_WEIGHT}",
            ],
        )


def _protocol(scene: Scene, victim: int) -> tuple[list, list]:
    """What server and user exchange, in its vocabulary."""
    shape = list(scene.seen.image_shape)
    metadata = SimpleNamespace(
        shape=shape, mean=CIFAR10.mean, std=CIFAR10.std, modality="vision"
    )
    payload = {
        "parameters": [p.detach() for p in scene.model.parameters()],
        "buffers": list(scene.model.buffers()),
        "metadata": metadata,
    }
    user = {"num_data_points": 1, "labels": scene.labels[victim]}
    shared = {
        "gradients": to_list(scene.seen.shared, victim),
        "buffers": None,
        "metadata": {**user, "local_hyperparams": None},
    }
    return [payload], [shared]
