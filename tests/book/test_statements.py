"""What the front matter says about the library is true of it."""

import dataclasses
import re

import torch
from book_site import ROOT

from precode_lib.bottleneck import BITS_BETA
from precode_lib.data import Normalisation
from precode_lib.federated import Observation, observe
from precode_lib.models import smlp


def read(name: str) -> str:
    return (ROOT / "book" / name).read_text(encoding="utf-8")


def test_the_threat_model_has_every_field_of_an_observation_in_order():
    table = read("notation.md").split("(threat-model)=")[1]
    rows = re.findall(r"^\| `(\w+)` \|", table, flags=re.MULTILINE)
    assert rows == [field.name for field in dataclasses.fields(Observation)]


def test_beta_in_bits_is_the_number_on_the_page():
    (number,) = re.findall(r"\\approx ([\d.]+) \\cdot 10\^\{-3\}", read("notation.md"))
    assert round(1000 * BITS_BETA, 3) == float(number)


def after_the_lines(heading: str, **given) -> dict:
    """All names, after the code under a heading of the library's page ran."""
    section = read("api/index.md").split(f"## {heading}\n")[1]
    code = re.search(r"```python\n(.*?)```", section, flags=re.DOTALL)[1]
    generator = torch.Generator().manual_seed(0)
    model = smlp((1, 8, 8), width=16, generator=generator)
    names = {"model": model, "labels": torch.zeros(2, 1, dtype=torch.long), **given}
    exec(code.replace("iterations=1000", "iterations=2"), names)
    return names


def drawn(draw) -> torch.Tensor:
    """A picture of each of two clients."""
    return draw(2, 1, 1, 8, 8, generator=torch.Generator().manual_seed(1))


def test_the_lines_for_a_defense_and_an_objective_run():
    normal = Normalisation((0.5,), (0.25,))
    heading = "A defense and a distance of your own"
    names = after_the_lines(heading, images=drawn(torch.randn), normal=normal)
    for term in names["seen"].shared.dense().values():
        torch.testing.assert_close(term, term.round().clamp(-1, 1))
    first, second = (step.objective for step in names["search"])
    assert (first != second).all()
    names["seen"] = observe(names["model"], names["images"], names["labels"])
    shared = names["seen"].shared
    assert (names["l1_distance"](shared, shared) == 0).all()


def test_the_lines_for_your_own_model_run():
    pixels = drawn(torch.rand)
    heading = "A model of your own"
    names = after_the_lines(heading, pixels=pixels, print=lambda *values: None)
    found = names["normal"].denormalise(names["found"].images)
    torch.testing.assert_close(found, pixels[:, 0])
    assert names["search"].result.pixels.shape == pixels.shape
