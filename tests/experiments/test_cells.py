"""Cells are values: written down and read back the same, and named by all they hold."""

import json
from dataclasses import fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_cells import (
    ATS,
    ATTACK,
    EVERY_KIND,
    NOISE,
    SETUP,
    TRAINED,
    TRAINING,
    of,
    raised,
)

from precode_lib.experiments import (
    DEFENSES,
    LITE,
    PAPER,
    SMOKE,
    TABLES,
    AtsCell,
    AttackCell,
    Defended,
    NoiseCell,
    Setup,
    TrainingCell,
    Value,
)
from precode_lib.experiments.cells import from_dict, key_of, namesake, to_dict

# Another value for every field, so that a forgotten one fails a test.
OTHER = {
    "dataset": "cifar10", "model": "dmlp", "defense": "ng-2", "seed": 1, "width": 8,
    "init": "pytorch", "k": 8, "beta": 0.5, "places": ("after features.hidden1",),
    "epochs": 5, "train_pictures": None, "test_pictures": None, "attack": "cpl",
    "victims": 8, "batch_size": 2, "iterations": 20, "patience": 3, "lr": 0.1,
    "shows": True, "draws": 5, "policy": "43-18-18", "adaptive": False,
}  # fmt: skip

UNHEARD = ("k", "beta", "places")


def every_change():
    """(kind, field, cell, the cell with another value in this one field)."""
    for name, cell in EVERY_KIND.items():
        for field in fields(cell):
            if field.name in OTHER:
                changed = replace(cell, **{field.name: OTHER[field.name]})
                yield name, field.name, cell, changed
        for field in fields(Setup):
            if name == "ats" and field.name in UNHEARD:
                continue  # without PRECODE they decide nothing
            yield name, field.name, cell, of(cell, **{field.name: OTHER[field.name]})
    yield "trained", "epoch", TRAINED, replace(TRAINED, epoch=1)
    other = replace(TRAINED, training=replace(TRAINING, epochs=9))
    yield "trained", "training", TRAINED, other


def test_the_list_of_other_values_knows_every_field():
    kinds = (Setup, TrainingCell, AttackCell, NoiseCell, AtsCell)
    names = {field.name for kind in kinds for field in fields(kind)}
    assert names - {"setup", "epoch", "training"} == OTHER.keys()


@pytest.mark.parametrize(("kind", "field", "cell", "changed"), [*every_change()])
def test_whatever_decides_a_result_changes_the_name(kind, field, cell, changed):
    assert changed != cell
    assert key_of(changed, "pictures") != key_of(cell, "pictures")
    assert from_dict(to_dict(changed)) == changed


@pytest.mark.parametrize("cell", EVERY_KIND.values(), ids=EVERY_KIND)
def test_other_pictures_and_a_higher_version_change_the_name(cell, monkeypatch):
    name = key_of(cell, "pictures")
    assert key_of(cell, "other pictures") != name
    raised(monkeypatch, cell.kind, 99)
    assert key_of(cell, "pictures") != name


def test_a_higher_version_of_trainings_renames_what_starts_from_one(monkeypatch):
    noisy = replace(NOISE, epoch=2, training=TRAINING)
    names = [key_of(cell, "") for cell in (TRAINED, noisy, ATTACK, NOISE, ATS)]
    raised(monkeypatch, "training", 2)
    later = [key_of(cell, "") for cell in (TRAINED, noisy, ATTACK, NOISE, ATS)]
    same = [one == other for one, other in zip(names, later, strict=True)]
    assert same == [False, False, True, True, True]


def test_a_name_stays_what_it_was():
    # Finished cells are found by it: if this fails, they would all be run again.
    assert key_of(ATTACK, "0" * 16) == "attack-photos-smlp-precode-s0-b7d9463c6003"
    assert key_of(TRAINED, "0" * 16) == "attack-photos-smlp-precode-s0-ad00b1b47e13"
    assert key_of(TRAINING, "0" * 16) == "training-photos-smlp-precode-s0-f771409928dc"
    assert key_of(NOISE, "0" * 16) == "noise-photos-smlp-precode-s0-17a3d0de57c5"
    assert key_of(ATS, "0" * 16) == "ats-photos-resnet-none-s0-7928b92017ec"


@pytest.mark.parametrize("scale", [SMOKE, LITE, PAPER], ids=lambda scale: scale.name)
def test_cells_of_all_tables_survive_json_and_have_names_of_their_own(scale):
    all_cells = {c for table in TABLES.values() for c in table.all_cells(scale)}
    assert len(all_cells) > 50
    for cell in all_cells:
        assert from_dict(json.loads(json.dumps(to_dict(cell)))) == cell
    assert len({key_of(cell, "pictures") for cell in all_cells}) == len(all_cells)


@given(
    victims=st.integers(1, 200),
    seed=st.integers(0, 10**6),
    lr=st.floats(1e-6, 10) | st.integers(1, 9),
    beta=st.floats(0, 1) | st.integers(0, 1),
    places=st.lists(st.sampled_from(["before fc", "after conv"]), max_size=2),
)
def test_equal_cells_have_equal_names_however_they_were_written(
    victims, seed, lr, beta, places
):
    setup = Setup("photos", "lenet", "precode", seed, beta=beta, places=places)
    cell = AttackCell(setup, victims=victims, lr=lr)
    again = from_dict(json.loads(json.dumps(to_dict(cell))))
    assert again == cell
    assert hash(again) == hash(cell)
    assert key_of(again, "pictures") == key_of(cell, "pictures")


def test_a_whole_number_names_the_same_cell_as_the_float_that_equals_it():
    one, other = replace(ATTACK, lr=1), replace(ATTACK, lr=1.0)
    assert key_of(one, "") == key_of(other, "")
    assert key_of(of(one, beta=1), "") == key_of(of(other, beta=1.0), "")


@pytest.mark.parametrize("part", ["cell", "setup", "training", "its setup"])
def test_unknown_fields_are_refused(part):
    entry = to_dict(TRAINED)
    entry["training"]["setup"] = dict(entry["training"]["setup"])
    training = entry["training"]
    place = {"cell": entry, "setup": entry["setup"], "training": training}
    place.get(part, training["setup"])["colour"] = "blue"
    with pytest.raises(ValueError, match=r"\['colour'\].*another version"):
        from_dict(entry)


def test_unknown_kinds_are_refused():
    with pytest.raises(
        ValueError, match="no kind of cell 'guess'; .*attack, noise, training"
    ):
        from_dict({**to_dict(ATTACK), "kind": "guess"})


def test_impossible_cells_are_refused():
    with pytest.raises(ValueError, match="4 victims do not fill batches of 3"):
        replace(ATTACK, batch_size=3)
    with pytest.raises(ValueError, match="needs its training"):
        replace(ATTACK, epoch=2)
    with pytest.raises(ValueError, match="only that: got epoch 0"):
        replace(ATTACK, training=TRAINING)
    with pytest.raises(ValueError, match="published or pytorch, got 'pytorhc'"):
        replace(SETUP, init="pytorhc")
    with pytest.raises(TypeError, match=r'write \("before fc",\)'):
        replace(SETUP, places="before fc")


def test_a_width_that_changes_nothing_is_refused():
    # lenet has one width: 12 and 99 would be equal weights under two names.
    assert Setup("photos", "lenet") == Setup("photos", "lenet", width=12)
    with pytest.raises(ValueError, match="lenet comes in one width, 12, got 99"):
        Setup("photos", "lenet", width=99)
    with pytest.raises(ValueError, match="got 16: .*Leave the width out"):
        of(ATTACK, model="lenet")
    assert Setup("photos", "dmlp").width == 1024


@pytest.mark.parametrize("field", UNHEARD)
def test_what_a_defense_cannot_hear_changes_no_name(field, monkeypatch):
    for defense in ("none", "ng-3", "gc-90"):
        setup = Setup("photos", "dmlp", defense)
        assert replace(setup, **{field: OTHER[field]}) == setup
    bare = of(TRAINED, defense="none", k=256)
    bare = replace(bare, training=of(TRAINING, defense="none", k=256))
    other = of(bare, **{field: OTHER[field]})
    assert key_of(other, "") == key_of(bare, "")
    precode = Setup("photos", "dmlp", "precode")
    assert replace(precode, **{field: OTHER[field]}) != precode
    # One's own that puts something into the model may hear it all.
    own = Defended("mine", insert=lambda model, setup, generator: model)
    monkeypatch.setitem(DEFENSES.data, "mine", own)
    for name in ("mine", "nobody knows it yet"):
        setup = Setup("photos", "dmlp", name)
        assert replace(setup, **{field: OTHER[field]}) != setup


def test_a_model_that_nobody_knows_yet_keeps_its_width():
    assert Setup("photos", "mine", width=99).width == 99


def test_a_second_name_counts_under_the_first_in_the_training_too():
    tenfold = of(TRAINED, defense="ng-3-x10")
    tenfold = replace(tenfold, training=of(TRAINING, defense="ng-3-x10"))
    first = namesake(tenfold)
    assert (first.setup.defense, first.training.setup.defense) == ("ng-2", "ng-2")
    assert replace(first.setup, defense="ng-3-x10") == tenfold.setup
    assert namesake(first) is namesake(ATTACK) is None
    assert namesake(of(ATTACK, defense="nobody knows it yet")) is None


def test_a_value_is_per_victim_or_per_gradient():
    assert str(Value("dB", per="victim")) == "dB; one per victim"
    with pytest.raises(ValueError, match="per gradient or neither, got 'epoch'"):
        Value("nats", per="epoch")


def test_cells_say_what_they_are_without_what_is_usual():
    assert str(Setup("cifar10", "dmlp", "gc", 2)) == "cifar10 dmlp gc seed 2"
    assert str(TRAINING) == "train photos smlp precode width=16 k=4 seed 0, 3 epochs"
    batch = replace(TRAINED, batch_size=2, lr=0.1)
    assert str(batch).endswith("4 victims, batches of 2, after 2 epochs, lr 0.1")
    assert str(ATS).startswith("ats 3-1-7, adaptive, photos resnet")
