"""Which cells are run, in which order, and what is said of the others."""

from dataclasses import replace

import pytest
import torch
from tiny_cells import ATS, ATTACK, EVERY_KIND, TRAINED, TRAINING, of, raised

from precode_lib.experiments import (
    Event,
    Finished,
    Progress,
    Tally,
    Task,
    find,
    plan,
    queue,
    reproduce,
    with_trainings,
)
from precode_lib.experiments.cells import key_of
from precode_lib.experiments.one_cell import weights_file
from precode_lib.experiments.store import claimed


def settled(events):
    """What became of each cell."""
    return [(event.cell, event.state) for event in events if event.state]


@pytest.fixture
def ran(monkeypatch):
    """The cells that are run, in order; the runs themselves take no time."""
    cells = []

    def run(cell, lab, key, *, marks=()):
        cells.append(cell)
        yield Progress(1, 2)
        if cell.setup.seed == 13:
            raise RuntimeError("bad luck")
        for mark in marks:
            torch.save({}, weights_file(cell, lab, mark))
        return {"fake": len(cells)}

    monkeypatch.setattr(queue, "run", run)
    return cells


# --- one after the other --------------------------------------------------------------


@pytest.mark.parametrize("cell", EVERY_KIND.values(), ids=EVERY_KIND)
def test_a_cell_is_run_once_and_kept(cell, store, lab, ran):
    first = [cell] if cell is not TRAINED else [TRAINING, TRAINED]
    assert settled(reproduce([cell], store, lab)) == [(c, "finished") for c in first]
    assert settled(reproduce([cell, cell], store, lab)) == [(cell, "kept")]
    assert ran == first


def test_a_finished_cell_says_what_was_used_and_how(store, lab):
    list(reproduce([ATTACK], store, lab))
    (finished,) = store
    assert finished.cell == ATTACK
    assert finished.key == key_of(ATTACK, lab.digest(ATTACK))
    (pictures,) = finished.pictures
    assert (pictures["name"], pictures["number"]) == ("photos train", 4)
    assert finished.made["processor_seconds"] > 0


def test_nothing_unfinished_is_left_behind(store, lab):
    eager = replace(lab, every=0.0)
    list(reproduce([TRAINED, ATS], store, eager))
    weights = weights_file(TRAINING, lab, 2)
    left = {file for file in lab.work.iterdir() if file.suffix != ".lock"}
    assert left == {weights}


def test_progress_is_told_before_the_end(store, lab):
    cell = replace(ATTACK, iterations=25, patience=25)
    events = list(reproduce([cell], store, lab))
    assert [event.progress.done for event in events[:-1]] == [1, 11, 21]
    assert {event.progress.total for event in events[:-1]} == {25}
    assert events[-1] == Event(cell, "finished")


def test_trainings_come_first_and_once(store, lab, ran):
    other = replace(TRAINED, epoch=1)
    assert settled(reproduce([ATTACK, TRAINED, other, TRAINING], store, lab)) == [
        (TRAINING, "finished"),
        (ATTACK, "finished"),
        (TRAINED, "finished"),
        (other, "finished"),
    ]
    for epoch in (1, 2):
        assert weights_file(TRAINING, lab, epoch).exists()


def test_a_training_is_not_repeated_where_its_weights_are(store, lab, ran):
    list(reproduce([TRAINED], store, lab))
    assert [each.key for each in store] == sorted(each.key for each in store)
    again = of(TRAINED, seed=0)
    store.file(key_of(again, lab.digest(again))).unlink()
    list(reproduce([TRAINED], store, lab))
    assert ran == [TRAINING, TRAINED, TRAINED]


def test_a_finished_training_is_repeated_for_weights_that_are_gone(store, lab, ran):
    list(reproduce([TRAINING], store, lab))
    assert settled(reproduce([TRAINED], store, lab)) == [
        (TRAINING, "finished"),
        (TRAINED, "finished"),
    ]
    assert ran == [TRAINING, TRAINING, TRAINED]


def test_a_training_that_has_to_come_first_is_planned_with_its_epochs(store, lab):
    cells = [replace(TRAINED, epoch=1), TRAINED, replace(TRAINED, epoch=3)]
    (training, *attacks), events = plan(cells, store, lab)
    assert (training.cell, training.marks) == (TRAINING, (1, 2, 3))
    assert [task.cell for task in attacks] == cells
    assert {task.after for task in attacks} == {training.key}
    assert events == []


def test_what_attacks_start_from_is_counted_with_them():
    other = replace(TRAINED, epoch=1)
    assert with_trainings([ATTACK, TRAINED, other]) == [
        ATTACK,
        TRAINING,
        TRAINED,
        other,
    ]
    assert with_trainings([TRAINED, TRAINING]) == [TRAINING, TRAINED]


# --- what goes wrong ------------------------------------------------------------------


def test_missing_pictures_are_reported_and_keep_nothing_else_from_running(
    store, lab, ran
):
    missing = of(ATTACK, dataset="cifar100")
    events = list(reproduce([missing, ATTACK], store, lab))
    assert settled(events) == [(missing, "missing"), (ATTACK, "finished")]
    assert events[0].problem.startswith("CIFAR-100 is not here")
    assert ran == [ATTACK]


def test_a_failure_is_reported_and_keeps_nothing_else_from_running(store, lab, ran):
    unlucky = of(ATTACK, seed=13)
    events = list(reproduce([unlucky, ATTACK], store, lab))
    assert settled(events) == [(unlucky, "failed"), (ATTACK, "finished")]
    assert events[1].problem == "RuntimeError: bad luck"
    assert [each.cell for each in store] == [ATTACK]


@pytest.mark.parametrize("problem", [KeyError("x"), MemoryError(), OSError("full")])
def test_any_failure_is_one_cell_s_only(problem, store, lab, monkeypatch):
    def run(cell, lab, key, *, marks=()):
        if cell == ATTACK:
            raise problem
        return {}
        yield

    monkeypatch.setattr(queue, "run", run)
    assert settled(reproduce([ATTACK, ATS], store, lab)) == [
        (ATTACK, "failed"),
        (ATS, "finished"),
    ]


def test_ctrl_c_ends_everything_and_gives_the_claim_back(store, lab, monkeypatch):
    def run(cell, lab, key, *, marks=()):
        raise KeyboardInterrupt
        yield

    monkeypatch.setattr(queue, "run", run)
    with pytest.raises(KeyboardInterrupt):
        list(reproduce([ATTACK, ATS], store, lab))
    with claimed(lab.work, key_of(ATTACK, lab.digest(ATTACK))):
        pass
    assert [*store] == []


def test_a_cell_of_another_process_is_left_to_it(store, lab, ran):
    key = key_of(ATTACK, lab.digest(ATTACK))
    with claimed(lab.work, key):
        events = list(reproduce([ATTACK, ATS], store, lab))
    assert settled(events) == [(ATTACK, "busy"), (ATS, "finished")]
    assert ran == [ATS]


def test_what_another_process_finished_meanwhile_is_kept(store, lab, ran):
    events = reproduce([ATS, ATTACK], store, lab)
    next(events)  # ATS is running; then the other process finishes ATTACK
    key = key_of(ATTACK, lab.digest(ATTACK))
    store.write(Finished(ATTACK, {}, [], {"date": ""}, key))
    assert settled(events) == [(ATS, "finished"), (ATTACK, "kept")]
    assert ran == [ATS]


@pytest.mark.parametrize("state", ["busy", "failed"])
def test_an_attack_shares_the_fate_of_its_training(state, store, lab, ran):
    training = of(TRAINING, seed=13)
    trained = replace(of(TRAINED, seed=13), training=training)
    if state == "busy":
        with claimed(lab.work, key_of(training, lab.digest(training))):
            events = list(reproduce([trained, ATTACK], store, lab))
    else:
        events = list(reproduce([trained, ATTACK], store, lab))
    assert settled(events) == [
        (training, state),
        (trained, state),
        (ATTACK, "finished"),
    ]
    problem = next(e.problem for e in events if e.cell == trained)
    assert problem.startswith("it starts from a training that was not finished")


def test_time_spent_before_a_kill_is_counted(store, lab):
    lab.work.mkdir()
    key = key_of(ATTACK, lab.digest(ATTACK))
    (lab.work / f"{key}.seconds").write_text("100.0")
    list(reproduce([ATTACK], store, lab))
    (finished,) = store
    assert 100 < finished.made["processor_seconds"] < 160


def test_an_empty_note_of_the_time_stops_nothing(store, lab):
    lab.work.mkdir()
    key = key_of(ATTACK, lab.digest(ATTACK))
    (lab.work / f"{key}.seconds").touch()
    assert settled(reproduce([ATTACK], store, lab)) == [(ATTACK, "finished")]


# --- finding and counting -------------------------------------------------------------


def done(cell, key, date):
    return Finished(cell, {"which": key}, [], {"date": date}, key)


def test_finished_cells_are_found_by_what_they_are(store):
    store.write(done(ATTACK, "one", "2026-01-01"))
    store.write(done(ATS, "two", "2026-01-01"))
    assert find([ATTACK, TRAINING], store) == {
        ATTACK: done(ATTACK, "one", "2026-01-01")
    }


def test_the_newest_counts_where_two_copies_of_a_data_set_were_used(store):
    store.write(done(ATTACK, "newer", "2026-02-01"))
    store.write(done(ATTACK, "older", "2026-01-31"))
    assert find([ATTACK], store)[ATTACK].key == "newer"


def test_of_two_of_one_day_the_later_counts(store):
    day = "2026-02-01"
    for key, time in (("a-later", "16:00:00"), ("b-earlier", "09:30:00"), ("c", "")):
        finished = done(ATTACK, key, day)
        made = {"date": day, **({"time": time} if time else {})}
        store.write(replace(finished, made=made))
    assert find([ATTACK], store)[ATTACK].key == "a-later"


def test_seeds_on_other_pictures_than_the_newest_do_not_count(store):
    own, shipped = [{"name": "a", "fidelity": "lossless"}], [{"name": "a"}]
    for seed, date, pictures in (
        (0, "2026-01-01", shipped),
        (1, "2026-01-01", shipped),
        (1, "2026-02-01", own),
        (2, "2026-01-02", own),
    ):
        key = f"{seed}-{len(pictures[0])}"
        store.write(replace(done(of(ATTACK, seed=seed), key, date), pictures=pictures))
    store.write(replace(done(ATS, "ats", "2026-01-01"), pictures=shipped))
    cells = [ATS, *(of(ATTACK, seed=seed) for seed in range(3))]
    found = find(cells, store)
    assert {f.key for f in found.values()} == {"ats", "1-2", "2-2"}
    assert find(cells[:2], store)[ATTACK].key == "0-1"


def test_a_worker_with_other_pictures_is_refused(lab, ran):
    key = key_of(ATTACK, "other pictures")
    with pytest.raises(ValueError, match="the worker's pictures"):
        queue._run_remotely(Task(ATTACK, key), lab)
    assert ran == []
    key = key_of(ATTACK, lab.digest(ATTACK))
    assert queue._run_remotely(Task(ATTACK, key), lab).key == key


def test_results_of_an_earlier_version_are_not_found(store, lab, ran, monkeypatch):
    list(reproduce([ATTACK], store, lab))
    raised(monkeypatch, "attack", 2)
    assert find([ATTACK], store) == {}
    assert settled(reproduce([ATTACK], store, lab)) == [(ATTACK, "finished")]


def test_a_tally_is_complete_when_every_cell_has_a_result():
    tally = Tally()
    for event in (Event(ATTACK, "kept"), Event(ATS), Event(ATS, "finished")):
        tally.add(event)
    assert tally.is_complete
    assert tally.counts == {"kept": 1, "finished": 1}
    tally.add(Event(TRAINED, "busy", problem="taken"))
    assert not tally.is_complete
    assert tally.problems == {str(TRAINED): "taken"}
