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


def test_the_lines_for_a_defense_and_an_objective_run():
    code, _ = re.findall(r"```python\n(.*?)```", read("how_to_use.md"), flags=re.DOTALL)
    generator = torch.Generator().manual_seed(0)
    names = {
        "model": smlp((1, 8, 8), width=16, generator=generator),
        "images": torch.randn(2, 1, 1, 8, 8, generator=generator),
        "labels": torch.zeros(2, 1, dtype=torch.long),
        "normal": Normalisation((0.5,), (0.25,)),
    }
    exec(code.replace("iterations=1000", "iterations=2"), names)
    for term in names["seen"].shared.dense().values():
        torch.testing.assert_close(term, term.round().clamp(-1, 1))
    first, second = (step.objective for step in names["search"])
    assert (first != second).all()
    names["seen"] = observe(names["model"], names["images"], names["labels"])
    shared = names["seen"].shared
    assert (names["l1_distance"](shared, shared) == 0).all()


def test_the_lines_for_your_own_model_run():
    _, code = re.findall(r"```python\n(.*?)```", read("how_to_use.md"), flags=re.DOTALL)
    generator = torch.Generator().manual_seed(0)
    names = {
        "model": smlp((1, 8, 8), width=16, generator=generator),
        "pixels": torch.rand(2, 1, 1, 8, 8, generator=generator),
        "labels": torch.zeros(2, 1, dtype=torch.long),
        "print": lambda *values: None,
    }
    exec(code.replace("iterations=1000", "iterations=2"), names)
    found = names["normal"].denormalise(names["found"].images)
    torch.testing.assert_close(found, names["pixels"][:, 0])
    assert names["search"].result.pixels.shape == names["pixels"].shape


def test_every_section_of_the_library_says_where_its_names_are_imported_from():
    module = re.compile(r"^\.\. (?:current)?module:: (\S+)", flags=re.MULTILINE)
    pages = [p.read_text("utf-8") for p in (ROOT / "book" / "api").glob("*.md")]
    checked = 0
    for page in pages:
        intro, *sections = page.split("\n## ")
        for section in sections:
            for name in module.findall(section):
                checked += 1
                said = f"`{name}`", f"from {name} import"
                assert any(words in intro + section for words in said), name
    assert checked > 40


def test_the_glossary_is_in_alphabetical_order():
    (glossary,) = re.findall(r"```\{glossary\}\n(.*?)```", read("glossary.md"), re.S)
    entries = [entry.splitlines()[0] for entry in glossary.strip().split("\n\n")]
    assert len(entries) > 40
    assert entries == sorted(entries, key=str.casefold)
