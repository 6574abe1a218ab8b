"""What the book shows of results is in the files, and nothing else is."""

import base64
import io
from dataclasses import replace

import pytest
import torch
from PIL import Image

from precode_lib.data import victims
from precode_lib.experiments import (
    DEFENSES,
    LITE,
    MODELS,
    PAPER,
    SMOKE,
    TABLES,
    Finished,
    Store,
    as_csv,
    as_records,
)
from precode_lib.experiments.cells import reseeded
from precode_lib.experiments.shelf import (
    METRICS,
    NOT_RUN,
    Shelf,
    nearest,
    pictures_of,
    results_folder,
    side_by_side,
    variant,
)
from precode_lib.experiments.tables import READINGS

MADE = {"torch": "2", "device": "cpu", "date": "2026-01-01", "processor_seconds": 36.0}


def finished(cell, **result) -> Finished:
    pictures = [{"name": "photos", "number": 4, "fidelity": "lossless"}]
    return Finished(cell, result, pictures, MADE, key=f"cell-{cell.setup.seed}")


def attacked(cell, ssim, **more) -> Finished:
    means = {"mse": 1.0, "psnr": 10.0, "ssim": ssim, "asr": 0.5}
    return finished(cell, last={"paper": means}, ssim=[ssim, ssim], **more)


@pytest.fixture
def cell():
    return TABLES["table2"].cells(LITE)[0]


def test_a_shelf_reads_the_cells_of_its_scale_from_a_folder(tmp_path, cell):
    Store(tmp_path / "lite").write(attacked(cell, 0.25))
    shelf = Shelf.of(LITE, tmp_path)
    assert list(shelf.found) == [cell]
    assert shelf.ssim(cell) == [0.25, 0.25]
    assert Shelf.of(SMOKE, tmp_path).found == {}


def test_a_line_has_mean_and_spread_above_the_published_number(cell):
    found = {reseeded(cell, s): attacked(reseeded(cell, s), v) for s, v in
             ((0, 0.2), (1, 0.4))}  # fmt: skip
    heads, body = side_by_side(Shelf(LITE, found).rows("table2"))
    assert heads[:2] == ["model", "defense"]
    line = next(line for line in body if line[:2] == ["DMLP", "none"])
    assert line[heads.index("SSIM")] == ("0.30 ± 0.14", "0.99")
    assert line[heads.index("train, %")] == (NOT_RUN, "98.51")


def test_attack_and_training_of_a_setup_share_a_line():
    heads, body = side_by_side(Shelf(LITE, {}).rows("table1"))
    assert len(body) == 6
    assert all(len(line) == len(heads) for line in body)


def test_two_attacks_on_a_setup_keep_lines_of_their_own():
    heads, body = side_by_side(Shelf(LITE, {}).rows("why"))
    assert heads[0] == "attack"
    lenet = [line for line in body if line[1:4] == ["LeNet", "none", "lr 0.1"]]
    assert [line[0] for line in lenet] == ["IGA", "CPL"]


def test_a_cell_that_was_not_run_says_so_and_shows_no_number(cell):
    _, body = side_by_side(Shelf(LITE, {}).rows("fig7"))
    pairs = [entry for line in body for entry in line if isinstance(entry, tuple)]
    assert pairs
    assert {ours for ours, _ in pairs} == {NOT_RUN}


def test_every_model_and_defense_of_the_tables_has_a_title():
    setups = [c.setup for t in TABLES.values() for c in t.cells(LITE)]
    assert {setup.model for setup in setups} <= MODELS.keys()
    assert {setup.defense for setup in setups} == DEFENSES.keys()
    assert [n for n, d in DEFENSES.items() if d.meant] == [*READINGS]


def test_every_metric_of_the_tables_has_a_heading():
    shelf = Shelf(LITE, {})
    asked = {row.metric for table in TABLES for row in shelf.rows(table)}
    # The paper has pictures only.
    assert asked | {"relative_error"} == set(METRICS)


def test_ats_without_a_policy_says_so():
    _, body = side_by_side(Shelf(LITE, {}).rows("ats"))
    assert [line[3] for line in body][:2] == ["no policy", "policy 3-1-7"]


def test_stored_pictures_come_back_as_pixels(cell):
    levels = torch.arange(48, dtype=torch.uint8).view(4, 4, 3)
    buffer = io.BytesIO()
    Image.fromarray(levels.numpy()).save(buffer, format="PNG")
    text = base64.b64encode(buffer.getvalue()).decode()
    shown = pictures_of(attacked(cell, 0.1, shown=[7], pictures=[text]))
    assert list(shown) == [7]
    assert torch.equal((shown[7] * 255).round().byte(), levels.permute(2, 0, 1))
    assert pictures_of(attacked(cell, 0.1)) == {}


def test_provenance_names_each_fact_once_and_adds_up_the_hours(cell):
    found = {reseeded(cell, s): attacked(reseeded(cell, s), 0.1) for s in (0, 1)}
    facts = Shelf(LITE, found).provenance("table2")
    assert facts["pictures"] == ["4 of photos (lossless)"]
    assert facts["core hours"] == ["0.02"]


def test_curves_are_percent_one_list_for_each_seed():
    cell = TABLES["fig6"].cells(LITE)[0]
    done = finished(cell, train_accuracy=[0.1, 0.2], test_accuracy=[0.1, 0.1])
    shelf = Shelf(LITE, {cell: done})
    assert shelf.accuracy_curves(cell, "train") == [[10.0, 20.0]]


def test_ends_count_plateaus_steps_and_the_successes_of_each_seed(cell):
    found = {}
    for seed, ssim in ((0, 0.6), (1, 0.5)):
        ended = {"outcomes": ["plateau", "exhausted"], "iterations": [9, 20 + seed]}
        done = attacked(reseeded(cell, seed), ssim, **ended)
        found[done.cell] = done
    ends = Shelf(LITE, found).ends(cell)
    assert (ends.plateaus, ends.steps) == (2, [9, 20, 9, 21])
    assert ends.successes == [2, 0]
    assert Shelf(LITE, {}).ends(cell).successes == []


def test_the_nearest_picture_is_the_same_one_though_it_came_through_rounding():
    pictures = victims("photos", 6)
    some, others = victims(pictures, 2), victims("photos", 10)
    assert nearest(some, pictures).max() < 1e-4
    assert nearest(some, replace(others, stored=255 - others.stored)).min() > 0.05
    brighter = replace(pictures, stored=pictures.stored.clamp(max=252) + 3)
    assert 0.005 < nearest(some, brighter).max() < 3.1 / 255


def test_a_variant_changes_the_setup_alone(cell):
    changed = variant(cell, width=64)
    assert changed.setup.width == 64
    assert replace(changed, setup=cell.setup) == cell


def test_shipped_results_are_read_without_a_complaint():
    shelf = Shelf.of(LITE)
    assert len(shelf.found) > 50
    assert results_folder().name == "results"


def test_a_library_without_its_repository_says_where_results_are(monkeypatch, tmp_path):
    import precode_lib

    monkeypatch.setattr(precode_lib, "__file__", str(tmp_path / "lib" / "__init__.py"))
    with pytest.raises(FileNotFoundError, match="clone the repository"):
        results_folder()


@pytest.mark.parametrize("scale", [LITE, PAPER], ids=lambda scale: scale.name)
def test_the_shipped_tables_are_those_of_the_shipped_cells(scale):
    """`precode results TABLE --scale lite --csv` writes one anew."""
    shelf, stale = Shelf.of(scale), []
    for name in TABLES:
        records = as_records(TABLES[name], scale.name, shelf.rows(name))
        kept = results_folder() / f"{name}-{scale.name}.csv"
        if kept.exists() or any(record["seeds"] for record in records):
            shipped = kept.read_text(encoding="utf-8") if kept.exists() else ""
            stale += [kept.name] if shipped != as_csv(records) else []
    assert stale == []
