"""An audit whole: who leaks, who does not, what is no verdict, and how it goes on."""

import json
from dataclasses import replace
from functools import partial
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from torch import nn

from precode_lib.attacks import Search
from precode_lib.audit import THREATS, audit, page, protection
from precode_lib.audit.findings import DONE, FAILED, REFUSED, STOPPED, UNTRIED
from precode_lib.audit.journal import digest
from precode_lib.data import IDENTITY, Pictures, victims
from precode_lib.defenses import add_noise
from precode_lib.federated import LocalTraining
from precode_lib.models import lenet, smlp

NO_SEARCH = 0  # of effort: closed forms and labels alone


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def pictures() -> Pictures:
    pixels = torch.rand(8, 3, 8, 8, generator=seeded())
    labels = torch.arange(8) % 4
    return Pictures(pixels, labels, tuple("abcd"), "made up", normalisation=IDENTITY)


@pytest.fixture(scope="module")
def mlp() -> nn.Module:
    return smlp((3, 8, 8), 4, width=32, generator=seeded())


@pytest.fixture(scope="module")
def convolutions() -> nn.Module:
    return lenet((3, 8, 8), 4, generator=seeded())


def test_a_dense_first_layer_leaks_with_proof(mlp, pictures):
    report = audit(mlp, pictures, effort=NO_SEARCH)
    (case,) = report.cases
    assert report.verdict == "leaks" and report.exit_code == 1
    assert case.figures["recovered"] == case.figures["certified"] == 8
    assert case.figures["labels"] == 1 and case.figures["ssim"] > 0.99
    assert "8 of 8 examples came back, 8 of them with proof" in report.sentence()


def test_the_model_and_the_global_generator_stay_as_they_are(mlp, pictures):
    before = {n: v.clone() for n, v in mlp.state_dict().items()}
    state, mode = torch.get_rng_state(), mlp.training
    audit(mlp, pictures, effort=NO_SEARCH, defense="precode:16")
    assert torch.equal(torch.get_rng_state(), state) and mlp.training == mode
    assert all(torch.equal(before[n], v) for n, v in mlp.state_dict().items())


def test_what_could_not_be_tried_is_no_verdict_and_never_safe(convolutions, pictures):
    report = audit(convolutions, pictures, effort=NO_SEARCH)
    searches = [f for f in report.cases[0].findings if f.group == "search"]
    assert {f.state for f in searches} <= {UNTRIED, REFUSED}
    assert report.verdict == "no verdict" and report.exit_code == 2
    assert any("steps were left" in sentence for sentence in report.not_tried())


def test_a_report_shows_itself_in_a_notebook_and_its_verdict_in_a_terminal(
    mlp, pictures
):
    report = audit(mlp, pictures, effort=NO_SEARCH, name='"><script>alert(1)</script>')
    assert repr(report) == f"<Report: leaks. {report.sentence()}>"
    found = Tags()
    found.feed(report._repr_html_())
    assert [name for name, _ in found.tags] == ["div", "iframe"]
    attributes = found.tags[1][1]
    assert attributes["srcdoc"] == page(report)
    assert attributes["sandbox"] is None  # there, with no permission at all
    assert attributes["title"] == f"Report: audit of {report.subject['name']}"


class Tags(HTMLParser):
    """The tags of a page, with what they have."""

    def __init__(self):
        super().__init__()
        self.tags: list[tuple[str, dict]] = []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))


def test_a_search_that_fails_is_no_verdict_either(convolutions, pictures, monkeypatch):
    def broken(self):
        raise RuntimeError("this layer has no second derivative")

    monkeypatch.setattr(Search, "_advance", broken)
    report = audit(convolutions, pictures, effort=0.2)
    failed = [f for f in report.cases[0].findings if f.state == FAILED]
    assert failed and "no second derivative" in failed[0].why
    assert report.verdict == "no verdict" and "second derivative" in report.sentence()


@pytest.mark.parametrize(
    "problem",
    [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: 9 GB")],
)
def test_a_search_that_needs_too_much_memory_says_what_to_do(
    convolutions, pictures, monkeypatch, problem
):
    def hungry(self):
        raise problem

    monkeypatch.setattr(Search, "_advance", hungry)
    report = audit(convolutions, pictures, effort=0.2)
    assert report.verdict == "no verdict"
    assert "not enough memory: fewer clients" in report.sentence()


def test_clients_that_cannot_compute_are_no_audit(pictures):
    class Raising(nn.Linear):
        def forward(self, x):
            if torch.is_grad_enabled():
                raise RuntimeError("not while training")
            return super().forward(x.flatten(1))

    with pytest.raises(ValueError, match="batch 1: no gradient could be computed"):
        audit(Raising(192, 4), pictures, effort=NO_SEARCH)


def test_a_search_brings_pictures_back_and_the_rule_decides(convolutions):
    clients = victims("photos", 2)
    model = lenet(generator=seeded())
    report = audit(model, clients, effort=0.2, fail_if="ssim > 0.99 and recovered > 2")
    case = report.cases[0]
    assert case.is_judged and report.exit_code == 0
    assert report.verdict == "within the rule"
    assert "examples came back" in report.sentence()
    assert case.figures["ssim"] > 0.2 and case.interval[1] > 0.5


def test_a_defense_is_audited_beside_its_control(mlp, pictures):
    report = audit(mlp, pictures, effort=NO_SEARCH, defense=["dp-sgd:1:1", "clip:1e-3"])
    private, clipped, control = report.cases
    assert control.is_control and not private.is_control
    assert private.figures["recovered"] == 0
    assert clipped.figures["certified"] == control.figures["certified"] == 8
    assert [c.name for c in report.fired] == [clipped.name]
    assert "at most" in private.promise["Bound"] and not clipped.promise
    text = page(report)
    assert "With the defense switched off 8 of 8 came back" in text


def test_a_defense_that_does_not_fit_stops_no_other(pictures):
    mixing = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 4)
    )
    report = audit(mixing, pictures, effort=NO_SEARCH, defense=["dp-sgd:1:1", "clip:1"])
    names = [case.name.rpartition(", ")[2] for case in report.cases]
    assert names == ["clip:1", "batch 1", "dp-sgd:1:1"]
    unplayed = report.cases[-1]
    assert not unplayed.is_judged and "batch norm" in unplayed.findings[0].why
    assert report.verdict == "no verdict" and report.to_json() and page(report)


def test_a_control_that_finds_nothing_says_so_in_the_verdict(mlp, pictures):
    report = audit(
        mlp, pictures, effort=NO_SEARCH, defense="noise:10", fail_if="ssim > 2"
    )
    assert report.verdict == "nothing found"
    assert "for the defense" not in report.sentence()
    noisy, control = report.cases
    weak = replace(report, cases=(noisy, replace(control, findings=())))
    assert "nothing came back either, so it says nothing" in weak.sentence()


def test_a_function_of_ones_own_is_a_defense(mlp, pictures):
    blur = partial(add_noise, std=10.0, generator=seeded())
    report = audit(mlp, pictures, effort=NO_SEARCH, defense=blur)
    assert report.cases[0].figures["recovered"] == 0
    with pytest.raises(TypeError, match="a defense must take"):
        protection(add_noise)


def test_what_a_defense_has_altered_proves_nothing_however_well_it_agrees():
    """Signs of one layer's rows agree to the last bit, and are no picture."""

    def signs(gradients):
        return gradients.map(lambda values: values.sign() * values.abs().mean())

    model = smlp(width=64, generator=seeded())
    report = audit(model, victims("photos", 4), defense=signs, effort=NO_SEARCH)
    altered, control = report.cases
    assert altered.figures["certified"] == altered.figures["features"] == 0
    assert altered.figures["recovered"] > 0  # it counts all the same
    assert control.figures["certified"] == control.figures["features"] == 4
    assert protection("clip:1").keeps_proofs and protection("precode").keeps_proofs
    asked = ("noise:1", "prune:0.5", "quantise:2", "dp-sgd:1:1")
    assert not any(protection(each).keeps_proofs for each in asked)


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ("nois:1", "Did you mean 'noise'"),
        ("noise", "write noise:STD"),
        ("noise:much", "'much' where a number"),
        ("noise:-1", "std must be"),
        ("prune:2", "ratio must be"),
        ("dp-sgd:1", "write dp-sgd:CLIP:MULTIPLIER"),
        ("noise:1:2:3", "write noise:STD"),
    ],
)
def test_a_defense_that_is_none_is_refused_before_anything_runs(asked, says):
    with pytest.raises(ValueError, match=says):
        protection(asked)


def test_fresh_and_given_weights_modes_and_batches_are_cases(mlp, pictures):
    models = {"given": mlp, "fresh": smlp((3, 8, 8), 4, width=32)}
    report = audit(
        models, pictures, batch=(1, 4), training=(True, False), effort=NO_SEARCH
    )
    names = [case.name for case in report.cases]
    assert len(set(names)) == len(names) == 8
    assert {case.clients for case in report.cases if case.batch == 4} == {2}
    assert names[0] == "given weights, training mode, batch 1"


def test_a_batch_larger_than_the_sample_is_refused(mlp, pictures):
    with pytest.raises(ValueError, match="a batch of 9 needs as many examples"):
        audit(mlp, pictures, batch=9, effort=NO_SEARCH)


@pytest.mark.parametrize("letter", sorted(THREATS))
def test_an_attacker_knows_what_the_letter_says(letter, convolutions, pictures):
    local = LocalTraining(2, 0.05)
    report = audit(
        convolutions, pictures, threat_letter=letter, effort=0.2, local=local, clients=1
    )
    found = {f.attack: f for f in report.cases[0].findings}
    with_prior = found["search by directions (IGA)"]
    if letter == "A":
        assert "needs to know the range of values" in with_prior.why
        assert found["search without a prior"].state == DONE
    else:
        assert with_prior.state in (DONE, UNTRIED)
        assert found["search without a prior"].state == REFUSED


def test_rows_and_their_success_need_no_pictures():
    rows, ages = torch.randn(6, 5, generator=seeded()), torch.rand(6, 1)
    net = nn.Sequential(nn.Linear(5, 16), nn.ReLU(), nn.Linear(16, 1))

    def squared(model, inputs, labels):
        return (model(inputs) - labels).square().sum(1)

    report = audit(net, (rows, ages), loss=squared, effort=NO_SEARCH)
    case = report.cases[0]
    assert case.figures["certified"] == 6 and case.figures["labels"] is None
    assert "<img" not in page(report)  # they are told in numbers


def test_the_same_audit_twice_is_the_same_report(convolutions, pictures):
    def plain(report):
        found = json.loads(report.to_json())
        for case in found["cases"]:
            for finding in case["findings"]:
                del finding["seconds"], finding["steps"]
        return found

    first, second = (
        audit(convolutions, pictures, effort=NO_SEARCH, seed=3, defense="noise:1e-3")
        for _ in range(2)
    )
    assert plain(first) == plain(second)


steps = []


def share_out(turns, seconds):
    """As if the machine's pace were another one each time."""
    count = steps.pop(0)
    return [replace(turn, iterations=count) for turn in turns]


class Killed(BaseException):
    """What a test raises where a process would be killed."""


@pytest.mark.parametrize("moment", [1, 3, 5, 8])
def test_killed_at_any_moment_it_goes_on_to_the_same_report(
    moment, convolutions, pictures, tmp_path, monkeypatch
):
    monkeypatch.setattr("precode_lib.audit.running._SAVED_EVERY", 0.0)
    monkeypatch.setattr("precode_lib.audit.running._shared_out", share_out)
    options, told = {"clients": 2}, []
    steps[:] = [5, 5, 9]  # whole, killed, resumed: a plan once made is kept
    whole = audit(
        convolutions, pictures, folder=tmp_path / "a", tell=told.append, **options
    )
    assert len(told) == 8 and not (tmp_path / "a").exists()

    def kill(sentence):
        heard.append(sentence)
        if len(heard) == moment:
            raise Killed

    heard = []
    with pytest.raises(Killed):
        audit(convolutions, pictures, folder=tmp_path / "b", tell=kill, **options)
    if moment < 4:  # before there was a plan
        steps[:] = [5]
    resumed = []
    again = audit(
        convolutions, pictures, folder=tmp_path / "b", tell=resumed.append, **options
    )
    assert len(resumed) < len(told) or moment < 4
    assert without_times(again) == without_times(whole)


def without_times(report) -> dict:
    found = json.loads(report.to_json())
    for case in found["cases"]:
        for finding in case["findings"]:
            del finding["seconds"]
    return found


def test_ctrl_c_reports_what_is_finished(convolutions, pictures, tmp_path):
    def stop(sentence):
        if "search" in sentence:
            raise KeyboardInterrupt

    report = audit(convolutions, pictures, effort=0.2, tell=stop, folder=tmp_path)
    states = {f.attack: f.state for f in report.cases[0].findings}
    assert states["strong search"] == STOPPED
    assert report.verdict == "stopped" and report.exit_code == 3
    assert any(tmp_path.iterdir())  # to go on from


def test_a_leak_is_a_leak_also_when_stopped(mlp, pictures):
    def stop(sentence):
        if "search" in sentence:
            raise KeyboardInterrupt

    assert audit(mlp, pictures, effort=0.2, tell=stop).exit_code == 1


def test_another_audit_in_the_same_folder_starts_anew(mlp, pictures, tmp_path):
    def stop(sentence):
        if "search" in sentence:
            raise KeyboardInterrupt

    audit(lenet((3, 8, 8), 4), pictures, effort=0.2, tell=stop, folder=tmp_path)
    left = set(tmp_path.iterdir())
    audit(mlp, pictures, effort=NO_SEARCH, folder=tmp_path)
    assert set(tmp_path.iterdir()) == left


def test_a_damaged_journal_is_made_again(mlp, pictures, tmp_path, monkeypatch):
    monkeypatch.setattr("precode_lib.audit.journal.Journal.clear", lambda self: None)
    first = audit(mlp, pictures, effort=NO_SEARCH, folder=tmp_path)
    for file in tmp_path.rglob("*.pt"):
        Path(file).write_bytes(b"cut")
    assert without_times(audit(mlp, pictures, effort=NO_SEARCH, folder=tmp_path)) == (
        without_times(first)
    )


def test_a_defense_that_stops_learning_shows_in_its_cost():
    generator = seeded(5)
    labels = torch.arange(90) % 2
    rows = torch.randn(90, 6, generator=generator) + 6.0 * labels[:, None]
    torch.manual_seed(0)  # torch draws the weights from there
    net = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 2))
    report = audit(
        net, (rows, labels), effort=NO_SEARCH, defense=["noise:100"], clients=2
    )
    accuracies = {n: a["accuracy"] for n, a in report.cost["accuracies"].items()}
    assert accuracies["none"] > 0.9
    assert accuracies["noise:100"] < accuracies["none"] - 0.1
    assert "What the defense costs" in page(report)


def test_too_few_examples_have_no_accuracy(mlp, pictures):
    report = audit(mlp, pictures, effort=NO_SEARCH, defense="clip:1")
    assert report.cost == {
        "measured": False,
        "why": "it takes 60 labelled examples, there are 8",
    }


@pytest.mark.parametrize("budget", [0, -1, float("nan")])
def test_a_budget_is_some_time(mlp, pictures, budget):
    with pytest.raises(ValueError, match="budget"):
        audit(mlp, pictures, budget=budget)


def test_examples_that_are_none_are_refused(mlp):
    with pytest.raises(TypeError, match=r"\(inputs, labels\)"):
        audit(mlp, torch.rand(3, 3, 8, 8))
    nan = torch.full((2, 3, 8, 8), float("nan"))
    with pytest.raises(ValueError, match="NaN"):
        audit(mlp, (nan, torch.zeros(2).long()))


def tokens_and_mask() -> dict:
    words = torch.randint(1, 40, (4, 6), generator=seeded())
    words[:, 5] = 0  # a padding
    return {"words": words, "mask": (words > 0).long()}


class Masked(nn.Module):
    """Words beside a mask of ones and zeros, as language models take them."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(40, 8, padding_idx=0)
        self.out = nn.Linear(8, 2)

    def forward(self, words, mask):
        return self.out((self.table(words) * mask[..., None]).sum(1))


def test_words_are_found_beside_a_mask_and_without_their_padding():
    examples = tokens_and_mask(), torch.tensor([0, 1, 0, 1])
    report = audit(Masked(), examples, effort=NO_SEARCH, fail_if="tokens > 0.5")
    figures = report.cases[0].figures
    assert report.verdict == "leaks" and figures["recovered"] == 4
    assert 0.6 < figures["tokens"] < 1  # the padding is no word
    assert report.sentence().startswith("These gradients leak: 4 of 4")


def test_words_of_a_batch_came_back_as_one_set():
    examples = tokens_and_mask(), torch.tensor([0, 1, 0, 1])
    report = audit(Masked(), examples, effort=NO_SEARCH, batch=2)
    assert report.cases[0].figures["recovered"] == 2 and report.cases[0].examples == 4


def test_noise_on_words_is_no_safety():
    examples = tokens_and_mask(), torch.tensor([0, 1, 0, 1])
    report = audit(Masked(), examples, effort=NO_SEARCH, defense="noise:1e-9")
    assert report.verdict == "no verdict"
    assert "as behind noise" in report.sentence()


def test_whole_numbers_that_a_layer_takes_are_divided_too():
    class Whole(nn.Linear):
        def forward(self, rows):
            return super().forward(rows.float())

    rows = torch.randint(0, 9, (4, 5), generator=seeded())
    report = audit(Whole(5, 3), (rows, torch.arange(4) % 3), effort=NO_SEARCH)
    assert report.cases[0].figures["certified"] == 4


@pytest.mark.parametrize(
    ("rule", "verdict", "says"),
    [
        ("ssim > 0.5", "no verdict", "speaks of ssim, and there is none here"),
        ("tokens > 0 or ssim > 0", "no verdict", "speaks of tokens, ssim"),
        ("ssim > 0 or certified", "leaks", "4 of 4"),
        ("recovered > 5", "within the rule", "did not fire, and 4 of 4 examples"),
        ("labels > 0.5 and not certified", "within the rule", "did not fire"),
        ("labels > 0.5 and certified > 3", "leaks", "4 of 4"),
    ],
)
def test_a_rule_is_judged_by_what_there_is(rule, verdict, says):
    rows = torch.randn(4, 5, generator=seeded())
    net = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 2))
    examples = rows, torch.tensor([0, 1, 0, 1])
    report = audit(net, examples, effort=NO_SEARCH, fail_if=rule)
    assert report.verdict == verdict and says in report.sentence()
    assert report.to_json() and page(report)


def test_another_figure_that_fires_is_named(convolutions, pictures):
    report = audit(convolutions, pictures, effort=NO_SEARCH, fail_if="features > 0")
    assert report.verdict == "leaks"
    assert report.sentence().startswith("The rule fired: features is 8 (")


def test_where_nothing_was_tried_no_rate_is_given(convolutions, pictures):
    report = audit(convolutions, pictures, effort=NO_SEARCH)
    (case,) = report.cases
    assert case.interval is None and case.figures["ssim"] is None
    assert "No attack ran that could" in page(report)
    assert json.loads(report.to_json())["cases"][0]["interval"] is None


def test_changed_code_behind_the_same_names_begins_anew():
    class First(nn.Linear):
        def forward(self, x):
            return super().forward(x.flatten(1))

    class Second(nn.Linear):
        def forward(self, x):
            return super().forward(x.flatten(1)) * 2

    Second.__qualname__, Second.__name__ = First.__qualname__, First.__name__
    one, other = First(192, 4), Second(192, 4)
    other.load_state_dict(one.state_dict())
    assert str(one) == str(other)
    assert digest(one) != digest(other) and digest(one) == digest(one)
    assert digest(test_noise_on_words_is_no_safety) != digest(tokens_and_mask)


@pytest.mark.parametrize(
    "problem", [AssertionError("Expected 224"), KeyError("mask"), AttributeError("x")]
)
def test_whatever_a_loss_raises_is_one_line(mlp, pictures, problem):
    def loss(model, inputs, labels):
        raise problem

    with pytest.raises(ValueError, match=f"computed: {type(problem).__name__}") as one:
        audit(mlp, pictures, loss=loss, effort=NO_SEARCH)
    assert "\n" not in str(one.value)


def test_a_search_that_never_moved_is_no_evidence(pictures):
    class Deaf(nn.Module):
        """Its gradient says nothing of pictures."""

        def __init__(self):
            super().__init__()
            self.bias = nn.Parameter(torch.zeros(4))

        def forward(self, x):
            return self.bias + 0 * x.flatten(1).sum(1, keepdim=True)

    report = audit(Deaf(), pictures, effort=0.2)
    states = {f.attack: f.state for f in report.cases[0].findings}
    assert states["strong search"] == "sees nothing"
