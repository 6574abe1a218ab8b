"""Attack pictures that a policy has transformed."""

from dataclasses import replace

from precode_lib.ats import Policy
from precode_lib.ats.evaluation import IGA_ATS, adaptive, evaluate, plain
from precode_lib.data import Pictures
from precode_lib.experiments.bench import Bench
from precode_lib.experiments.cells import Progress, Run


def run(cell, bench: Bench) -> Run:
    """Score the attack against the original pictures and the transformed ones.

    There is no checkpoint: a cell is minutes, and adaptive searches are many.
    """
    if bench.defense(bench.generator("noise")) is not None:
        defense = cell.setup.defense
        raise ValueError(f"ats cells share gradients as they are, not {defense}.")
    if not isinstance(bench.pictures[0], Pictures):
        raise ValueError(f"ats transforms pictures, not {bench.pictures[0]!r}.")
    policy, (pictures,) = Policy.parse(cell.policy), bench.pictures
    recipe = replace(IGA_ATS, iterations=cell.iterations)
    model = bench.model().eval()
    yield Progress(0, 1, str(policy))

    def attack(observation, generator):
        if not cell.adaptive:
            return plain(observation, generator, recipe=recipe)
        options = {"transforms": policy.variants, "recipe": recipe}
        return adaptive(observation, generator, **options)

    generator = bench.generator("attack")
    found = evaluate(model, pictures, policy, generator=generator, attack=attack)
    yield Progress(1, 1, str(policy))
    views = {
        "original": found.against_original,
        "transformed": found.against_transformed,
    }
    return {
        name: {**scores.mean._asdict(), "asr": scores.asr, "psnr_std": scores.std.psnr}
        for name, scores in views.items()
    }
