"""Who takes the numbers away finds them: what the README runs, links, licences."""

import contextlib
import io
import json
import re
from datetime import date
from pathlib import Path

import pytest
import torch
import yaml

import precode_lib
from precode_lib import experiments
from precode_lib.data import Pictures, Splits
from precode_lib.experiments import LITE, PAPER, TABLES, Gallery
from precode_lib.experiments.questions import questions
from precode_lib.experiments.shelf import Shelf

ROOT = Path(__file__).parents[2]
README = ROOT / "data" / "results" / "README.md"
PAGE = ROOT / "book" / "precode" / "evidence.ipynb"


def printed_by(code: str) -> list[str]:
    """What code of the README prints, run where a reader would run it."""
    with contextlib.redirect_stdout(io.StringIO()) as out:
        exec(code, {"__name__": "reader"})
    return out.getvalue().splitlines()


@pytest.fixture
def blocks(monkeypatch) -> list[str]:
    monkeypatch.chdir(ROOT)
    text = README.read_text(encoding="utf-8")
    return re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)


def test_the_readme_s_lines_count_what_the_tables_count(blocks):
    lines = printed_by(blocks[0])
    cell = next(
        c
        for c in Shelf.of(PAPER).cells("table1")
        if (c.kind, c.setup.model, c.setup.defense) == ("attack", "lenet", "none")
    )
    successes = Shelf.of(PAPER).ends(cell).successes
    assert len(lines) == len(successes) == 3
    for seed, (line, found) in enumerate(zip(lines, successes, strict=True)):
        assert line.startswith(f"{seed} 2026-")
        assert f" {found} of 128 " in line


class Cifar(Gallery):
    """A gallery in which CIFAR-10 is noise: nobody has its archives here."""

    def _whole(self, name):
        assert (name, self.data) == ("cifar10", Path("FOLDER"))
        sizes = LITE.train_pictures, LITE.test_pictures
        return self._once("whole", lambda: Splits(*map(noise, sizes)))

    def _published(self, dataset):
        return self._once("published", lambda: self._whole(dataset).train[:128])


def noise(count: int) -> Pictures:
    generator = torch.Generator().manual_seed(count)
    levels = torch.randint(256, (count, 3, 32, 32), generator=generator).byte()
    names = tuple(map(str, range(10)))
    return Pictures(levels, torch.arange(count) % 10, names, "CIFAR-10")


def test_the_readme_s_lines_measure_how_near_a_victim_is(blocks, monkeypatch):
    monkeypatch.setattr(experiments, "Gallery", Cifar)
    (line,) = printed_by(blocks[1])
    assert len(blocks) == 2
    assert float(line.removeprefix("tensor(").rstrip(")")) < 1e-3  # they are copies


def test_the_readme_tells_every_column_that_needs_telling():
    text = README.read_text(encoding="utf-8")
    for name in ("same_as", "index", "rank", "steps", "commit", "data", "units"):
        assert f"`{name}`" in text, name


# --- the page of the tables -----------------------------------------------------------


@pytest.fixture(scope="module")
def page() -> list[dict]:
    return json.loads(PAGE.read_text(encoding="utf-8"))["cells"]


def source(cell: dict) -> str:
    return "".join(cell["source"])


def is_table(cell: dict) -> bool:
    calls = re.search(r"^(compare|show_table|ask)\(", source(cell), flags=re.MULTILINE)
    return cell["cell_type"] == "code" and calls is not None


def test_under_every_table_of_the_page_is_its_csv(page):
    tables = [(n, cell) for n, cell in enumerate(page) if is_table(cell)]
    assert len(tables) >= 19
    for n, cell in tables:
        below = source(page[n + 1])
        assert below.startswith("*As CSV:* {download}"), source(cell)
        compared = re.search(r'^compare\(\s*"([\w-]+)"', source(cell), re.MULTILINE)
        name = compared[1] if compared else None
        if source(cell).startswith("ask("):
            name = "adapt"
        if name is not None:
            assert f"/{name}-lite.csv>" in below, source(cell)


def test_the_page_asks_every_question_in_its_order(page):
    text = "\n".join(source(cell) for cell in page)
    places = [text.index(f"**{question}**") for question in questions(LITE)]
    assert places == sorted(places)
    begun = re.findall(r'^ask\(\s*"([^"]+)"', text, flags=re.MULTILINE)
    asked = zip(begun, questions(LITE), strict=True)
    assert all(question.startswith(beginning) for beginning, question in asked)


def test_what_the_page_offers_for_download_is_shipped(page):
    text = "\n".join(source(cell) for cell in page)
    links = {*re.findall(r"\{download\}`[^`<]+<([^>]+)>`", text)}
    assert text.count("{download}") >= 20 and len(links) > 10
    for link in links:
        assert (PAGE.parent / link).resolve().parent == README.parent
        assert (PAGE.parent / link).is_file(), link
    names = {Path(link).name for link in links}
    assert {"cells.csv", "victims.csv"} <= names
    shown = {name.rpartition("-")[0] for name in names} - {""}
    assert shown <= TABLES.keys()


# --- licence and citation -------------------------------------------------------------


def test_the_citation_says_version_date_and_both_licences():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    data = next(r for r in cited["references"] if r["type"] == "data")
    assert (cited["type"], cited["license"]) == ("software", "MIT")
    assert data["license"] == "CC-BY-4.0"
    for part in (cited, data):
        assert part["version"] == precode_lib.__version__
        assert date(2026, 11, 20) <= part["date-released"]
        assert part["title"] and part["authors"]
    assert cited["references"].index(data) == 0


@pytest.mark.parametrize("name", ["data/README.md", "data/results/README.md"])
def test_numbers_code_and_pictures_each_have_their_licence(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    sentences = " ".join(text.split())
    assert "CC BY 4.0" in sentences and "MIT licence" in sentences
    assert re.search(r"[Pp]ictures (are not part of|stay out of)", sentences)
