"""The printed numbers: spot checks by hand, and what must hold for all of them."""

import pytest

from precode_lib.experiments import PAPER, TABLES, rows
from precode_lib.experiments.paper import ACCURACIES, ATS_PSNR, ATTACKS


@pytest.mark.parametrize(
    ("case", "metric", "printed"),
    [  # table and row as they stand in the paper
        (("cifar10", "iga", "smlp", "precode"), "mse", 3.95),  # Table 1
        (("cifar10", "iga", "smlp", "none"), "psnr", 44.13),
        (("cifar10", "iga", "dmlp", "ng-3"), "asr", 63.80),  # Table 2
        (("cifar10", "iga", "dmlp", "gc"), "ssim", 0.42),
        (("cifar10", "iga", "lenet", "none"), "asr", 42.45),
        (("cifar10", "iga", "lenet", "precode"), "psnr", 8.84),
        (("cifar100", "iga", "lenet", "ng-3"), "mse", 0.76),  # Table 3 (a)
        (("cifar100", "iga", "dmlp", "precode"), "psnr", 5.55),
        (("medical_mnist", "iga", "dmlp", "none"), "asr", 99.22),  # Table 3 (b)
        (("medical_mnist", "iga", "lenet", "ng-3"), "asr", 12.24),
        (("cifar10", "cpl", "dmlp", "ng-3"), "asr", 64.58),  # Table 4
        (("cifar10", "cpl", "lenet", "precode"), "psnr", 8.12),
        (("cifar10", "cpl", "lenet", "none"), "mse", 0.67),
    ],
)
def test_attacks_are_as_printed(case, metric, printed):
    assert ATTACKS[case][metric] == printed


@pytest.mark.parametrize(
    ("case", "train", "test"),
    [
        (("cifar10", "smlp", "precode"), 92.41, 51.75),  # Table 1
        (("cifar10", "dmlp", "gc"), 10.15, 10.04),  # Table 2
        (("cifar10", "lenet", "ng-3"), 73.55, 62.13),
        (("cifar100", "dmlp", "precode"), 80.87, 21.87),  # Table 3 (a)
        (("medical_mnist", "lenet", "ng-2"), 99.88, 99.81),  # Table 3 (b)
    ],
)
def test_accuracies_are_as_printed(case, train, test):
    assert ACCURACIES[case] == {"train_accuracy": train, "test_accuracy": test}


def test_success_rates_are_of_3_times_128_victims():
    for case, metrics in ATTACKS.items():
        successes = metrics["asr"] / 100 * 384
        assert abs(successes - round(successes)) < 0.05, case  # two decimals printed


def test_values_lie_where_their_metric_does():
    for metrics in ATTACKS.values():
        assert set(metrics) == {"mse", "psnr", "ssim", "asr"}
        assert 0 <= metrics["mse"] < 10
        assert 0 < metrics["psnr"] < 50
        assert 0 <= metrics["ssim"] < 1
        assert 0 <= metrics["asr"] <= 100
    for metrics in ACCURACIES.values():
        assert all(0 < value <= 100 for value in metrics.values())


@pytest.mark.parametrize("name", ["table1", "table2", "table3a", "table3b", "table4"])
def test_every_row_of_a_printed_table_has_its_printed_value(name):
    made = rows(TABLES[name], PAPER, {})
    assert made
    assert [row for row in made if row.paper is None] == []


def test_every_printed_value_is_in_some_table():
    tables = [TABLES[f"table{number}"] for number in ("1", "2", "3a", "3b", "4")]
    made = [row for table in tables for row in rows(table, PAPER, {})]
    shown = {
        (r.setup.dataset, r.attack, r.setup.model, r.setup.defense)
        for r in made
        if r.attack
    }
    assert shown == ATTACKS.keys()
    trained = {
        (r.setup.dataset, r.setup.model, r.setup.defense) for r in made if not r.attack
    }
    assert trained == ACCURACIES.keys()
    ats = {row.paper for row in rows(TABLES["ats"], PAPER, {})} - {None}
    assert ats == set(ATS_PSNR.values())
