"""Registries: open to names of one's own, closed to other meanings of known names."""

import pytest

from precode_lib.experiments import (
    ATTACKS,
    DATASETS,
    DEFENSES,
    KINDS,
    MODELS,
    Attack,
    Defended,
    Setup,
)
from precode_lib.experiments.names.defenses import meant
from precode_lib.experiments.reading import DEFENSES as TITLES


@pytest.fixture
def own(monkeypatch):
    """A defense that is forgotten after the test."""
    monkeypatch.setitem(DEFENSES.data, "mine", Defended("Mine", meant="gc"))


def test_a_name_of_the_library_has_one_meaning():
    for registry in (ATTACKS, DATASETS, DEFENSES, MODELS):
        name, entry = next(iter(registry.items()))
        with pytest.raises(ValueError, match=f"'{name}' is a .* of the library"):
            registry[name] = entry


def test_a_name_of_one_s_own_can_be_written_again(own):
    DEFENSES["mine"] = Defended("Mine, better")
    assert DEFENSES.title("mine") == "Mine, better"


def test_an_entry_of_another_class_is_refused():
    with pytest.raises(TypeError, match="a defense is a Defended, got function"):
        DEFENSES["mine"] = lambda generator: None
    with pytest.raises(TypeError, match="a kind of cell is a Kind, got type"):
        KINDS["mine"] = Setup
    assert "mine" not in DEFENSES


def test_an_attack_that_does_nothing_is_refused():
    with pytest.raises(ValueError, match="'Mine' needs a recipe to search by"):
        Attack("Mine")


def test_an_unknown_name_is_told_with_its_like():
    with pytest.raises(ValueError, match="no model 'dmpl'; .*Did you mean 'dmlp'"):
        MODELS.named("dmpl")


def test_a_title_is_the_name_where_nobody_has_said_another(own):
    assert (DEFENSES.title("mine"), DEFENSES.title("theirs")) == ("Mine", "theirs")
    # Where chapters read titles, one's own appears as well.
    assert TITLES["mine"] == "Mine"
    assert "mine" in list(TITLES) and len(TITLES) == len(DEFENSES)


def test_another_reading_knows_what_it_is_a_reading_of(own):
    assert [meant(n) for n in ("mine", "gc-90", "gc", "theirs")] == [
        *("gc", "gc", "gc", "theirs")
    ]
