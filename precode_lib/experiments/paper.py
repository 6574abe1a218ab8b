"""What Scheliga et al. 2022 print in their tables, to be compared with.

Attack metrics are MSE (normalised images), PSNR in dB, SSIM and ASR in percent, in the
convention `metrics.PAPER`; accuracies are percent. Values absent here were not printed.
"""

_ATTACK = ("mse", "psnr", "ssim", "asr")
_ACCURACY = ("train_accuracy", "test_accuracy")
_FIVE = ("none", "ng-2", "ng-3", "gc", "precode")
_FOUR = ("none", "ng-2", "ng-3", "precode")

# (dataset, attack, model) -> one row of numbers per metric, a column per defense
_ATTACK_ROWS = {
    ("cifar10", "iga", "smlp"): (  # Table 1
        ("none", "precode"),
        (0.0, 3.95), (44.13, 6.18), (0.99, 0.03), (100.0, 0.0),
    ),
    ("cifar10", "iga", "dmlp"): (  # Tables 1 and 2
        _FIVE,
        (0.0, 2.5, 0.17, 1.13, 4.62), (44.26, 8.11, 18.64, 12.09, 5.51),
        (0.99, 0.03, 0.62, 0.42, 0.01), (100.0, 0.0, 63.80, 3.12, 0.0),
    ),
    ("cifar10", "iga", "lenet"): (  # Tables 1 and 2
        _FIVE,
        (0.49, 1.59, 0.61, 1.9, 2.17), (15.72, 10.2, 14.73, 9.36, 8.84),
        (0.55, 0.22, 0.49, 0.18, 0.1), (42.45, 0.0, 30.47, 0.0, 0.0),
    ),
    ("cifar100", "iga", "dmlp"): (  # Table 3 (a)
        _FOUR,
        (0.0, 2.32, 0.15, 4.14), (40.23, 7.99, 18.63, 5.55),
        (0.98, 0.03, 0.58, 0.01), (100.0, 0.0, 45.05, 0.0),
    ),
    ("cifar100", "iga", "lenet"): (
        _FOUR,
        (0.81, 1.35, 0.76, 1.94), (12.69, 10.39, 13.17, 8.78),
        (0.33, 0.20, 0.36, 0.10), (2.60, 0.0, 8.33, 0.0),
    ),
    ("medical_mnist", "iga", "dmlp"): (  # Table 3 (b)
        _FOUR,
        (0.0, 2.86, 0.17, 5.29), (38.93, 6.57, 16.15, 4.30),
        (0.94, 0.03, 0.43, 0.00), (99.22, 0.0, 10.94, 0.0),
    ),
    ("medical_mnist", "iga", "lenet"): (
        _FOUR,
        (0.81, 1.69, 1.27, 2.35), (12.01, 9.07, 11.50, 7.55),
        (0.30, 0.15, 0.26, 0.09), (12.24, 0.0, 12.24, 0.0),
    ),
    ("cifar10", "cpl", "dmlp"): (  # Table 4
        _FOUR,
        (0.0, 3.01, 0.17, 4.07), (40.53, 7.31, 18.57, 6.05),
        (0.99, 0.03, 0.62, 0.01), (100.0, 0.0, 64.58, 0.0),
    ),
    ("cifar10", "cpl", "lenet"): (
        _FOUR,
        (0.67, 1.52, 0.72, 2.51), (14.53, 10.33, 14.15, 8.12),
        (0.47, 0.22, 0.45, 0.06), (29.17, 0.0, 27.86, 0.0),
    ),
}  # fmt: skip

_ACCURACY_ROWS = {
    ("cifar10", "smlp"): (("none", "precode"), (95.91, 92.41), (53.07, 51.75)),
    ("cifar10", "dmlp"): (
        _FIVE,
        (98.51, 43.83, 92.36, 10.15, 98.22), (54.92, 42.55, 51.36, 10.04, 54.16),
    ),
    ("cifar10", "lenet"): (
        _FIVE,
        (75.01, 56.88, 73.55, 22.29, 72.01), (61.19, 54.36, 62.13, 23.40, 58.99),
    ),
    ("cifar100", "dmlp"): (
        _FOUR, (61.85, 14.55, 64.78, 80.87), (22.66, 13.44, 21.56, 21.87),
    ),
    ("cifar100", "lenet"): (
        _FOUR, (63.73, 21.45, 48.23, 54.42), (28.92, 19.85, 30.22, 27.37),
    ),
    ("medical_mnist", "dmlp"): (
        _FOUR, (99.98, 100.0, 99.96, 99.89), (99.85, 99.88, 99.82, 99.80),
    ),
    ("medical_mnist", "lenet"): (
        _FOUR, (100.0, 99.88, 100.0, 100.0), (99.96, 99.81, 99.92, 99.95),
    ),
}  # fmt: skip

ATTACKS: dict[tuple[str, str, str, str], dict[str, float]] = {
    (*case, defense): dict(zip(_ATTACK, column, strict=True))
    for case, (defenses, *rows) in _ATTACK_ROWS.items()
    for defense, *column in zip(defenses, *rows, strict=True)
}
ACCURACIES: dict[tuple[str, str, str], dict[str, float]] = {
    (*case, defense): dict(zip(_ACCURACY, column, strict=True))
    for case, (defenses, *rows) in _ACCURACY_ROWS.items()
    for defense, *column in zip(defenses, *rows, strict=True)
}
# Gao et al. 2021 on a trained ResNet20-4 and CIFAR-100, as quoted by its replication
# (Taboada Warmerdam et al. 2022): PSNR in dB against the transformed picture.
ATS_PSNR = {
    ("-1", False): 13.88,
    ("3-1-7", False): 6.58,
    ("43-18-18", False): 8.56,
    ("3-1-7", True): 9.43,  # the replication's own adaptive attacker, as the next
    ("43-18-18", True): 10.34,
}
