"""From names to pictures, models and defenses."""

import math
import pickle
from dataclasses import replace

import pytest
import torch
from tiny_cells import ATS, ATTACK, EVERY_KIND, SETUP, TRAINED, TRAINING, of

from precode_lib import data
from precode_lib.attacks import VictimLBFGS
from precode_lib.bottleneck import VariationalBottleneck
from precode_lib.data import MissingDataError, Pictures, Splits, victims
from precode_lib.experiments import DATASETS, MODELS, Lab, Setup
from precode_lib.experiments.gallery import Gallery
from precode_lib.experiments.lab import stream
from precode_lib.experiments.runs.attack import recipe, storable
from precode_lib.federated import observe
from precode_lib.gradients import dense, from_list
from precode_lib.models import dmlp, lenet, smlp


def squares(count, classes=10, seed=0):
    generator = torch.Generator().manual_seed(seed)
    levels = torch.randint(256, (count, 3, 32, 32), generator=generator).byte()
    names = tuple(map(str, range(classes)))
    return Pictures(levels, torch.arange(count) % classes, names, "squares")


@pytest.fixture
def small_cifar(monkeypatch):
    """CIFAR-10 in name: 40 and 20 pictures, from whatever path is given."""
    asked = []

    def load(path):
        asked.append(path)
        return Splits(squares(40), squares(20, seed=1))

    small = replace(DATASETS["cifar10"], load=load, size=40)
    monkeypatch.setitem(DATASETS.data, "cifar10", small)
    return asked


@pytest.fixture
def fresh(tmp_path) -> Lab:
    """A lab that shares nothing with other tests."""
    return Lab(work=tmp_path)


def test_a_result_says_which_pictures_of_their_collection_the_victims_are(
    fresh, monkeypatch
):
    # In the order of their classes, so that the victims are not the first ones.
    ordered = replace(squares(40), labels=torch.arange(40) // 4)
    own = replace(DATASETS["photos"], load=lambda path: Splits(ordered, ordered))
    monkeypatch.setitem(DATASETS.data, "photos", own)
    chosen = fresh.gallery.victims("photos", 10)
    said = fresh.gallery.about(chosen)
    assert (said["name"], said["number"]) == ("squares", 10)
    assert said["indices"] == [*range(0, 40, 4)] == data.victim_indices(ordered, 10)
    assert torch.equal(ordered[said["indices"]].stored, chosen.stored)
    assert "indices" not in fresh.gallery.about(ordered)


# --- where pictures come from ---------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("cifar10", "cifar-10-python.tar.gz"),
        ("cifar10", "cifar-10-batches-py"),
        ("cifar10", "cifar10"),
        ("cifar10", "cifar10-images.zip"),
        ("cifar10", "cifar10_png.tar"),
        ("cifar100", "cifar-100-python.tar.gz"),
        ("cifar100", "cifar100_png.tar"),
        ("medical_mnist", "Medical-MNIST-Classification-master.zip"),
        ("medical_mnist", "medical_mnist"),
        ("paper", "128CIF_RECDATA.dict"),
    ],
)
def test_a_data_folder_is_searched_for_each_data_set_s_own_files(name, file, tmp_path):
    (tmp_path / file).touch()
    gallery = Gallery(tmp_path)
    assert gallery.path_of(name) == tmp_path / file
    others = {"cifar10", "cifar100", "medical_mnist", "paper"} - {name}
    assert {gallery.path_of(other) for other in others} == {None}


def test_paths_can_be_named_one_by_one_and_nothing_is_asked_without(tmp_path):
    gallery = Gallery({"cifar10": tmp_path / "mine.zip"})
    assert gallery.path_of("cifar10") == tmp_path / "mine.zip"
    assert gallery.path_of("cifar100") is None
    assert Gallery().path_of("cifar10") is None


def test_the_path_of_the_folder_is_what_is_loaded_and_only_once(tmp_path, small_cifar):
    (tmp_path / "cifar10-images.zip").touch()
    lab = Lab(work=tmp_path, data=tmp_path)
    cell = replace(of(TRAINING, dataset="cifar10"), train_pictures=None)
    assert len(lab.splits(cell).train) == 40
    lab.splits(cell), lab.digest(cell), lab.digest(of(ATTACK, dataset="cifar10"))
    assert small_cifar == [tmp_path / "cifar10-images.zip"]


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "medical_mnist"])
def test_pictures_that_are_not_here_are_missing(name, lab):
    for cell in (of(ATTACK, dataset=name), of(TRAINING, dataset=name)):
        with pytest.raises(MissingDataError, match=DATASETS[name].title):
            lab.digest(cell)


def test_a_part_of_a_data_set_is_not_taken_for_the_whole(fresh, small_cifar):
    cell = replace(of(TRAINING, dataset="cifar10"), train_pictures=41)
    with pytest.raises(MissingDataError, match="41 pictures are wanted, squares has"):
        fresh.splits(cell)
    with pytest.raises(MissingDataError, match="48 pictures are wanted"):
        fresh.victims(replace(of(ATTACK, dataset="cifar10"), victims=48))


def test_unknown_data_sets_are_refused_with_a_suggestion(lab):
    with pytest.raises(ValueError, match="'cifar1'; there are photos, .*cifar10"):
        lab.victims(of(ATTACK, dataset="cifar1"))


def test_other_names_are_refused_with_a_suggestion(lab):
    with pytest.raises(ValueError, match="no model 'dmpl'; .*Did you mean 'dmlp'"):
        lab.model(Setup("photos", "dmpl"), squares(4))
    with pytest.raises(ValueError, match="no defense 'ng2'; .*Did you mean 'ng-2'"):
        lab.perturbation(Setup("photos", "dmlp", "ng2"), torch.Generator())
    with pytest.raises(ValueError, match="no attack 'IGA'; there are iga, cpl"):
        recipe(replace(ATTACK, attack="IGA"))


def test_an_attack_keeps_its_own_optimizer_with_the_cell_s_learning_rate():
    iga = recipe(replace(ATTACK, attack="iga", lr=0.3)).optimizer
    assert (iga.func, iga.keywords) == (torch.optim.Adam, {"lr": 0.3})
    dlg = recipe(replace(ATTACK, attack="dlg", lr=0.5)).optimizer
    assert dlg.func is VictimLBFGS
    assert dlg.keywords == {"lr": 0.5, "absolute": True}


@pytest.mark.parametrize(("attack", "factor"), [("dlg-e3", 1e3), ("dlg-e6", 1e6)])
def test_dlg_in_other_units_is_dlg_but_for_a_factor(attack, factor):
    published = recipe(replace(ATTACK, attack="dlg"))
    other = recipe(replace(ATTACK, attack=attack))
    pair = [from_list(["w"], [torch.rand(3, 5)]) for _ in range(2)]
    torch.testing.assert_close(
        other.distance(*pair), factor * published.distance(*pair)
    )
    same = {"distance": published.distance, "name": published.name}
    assert replace(other, **same, optimizer=published.optimizer) == published
    assert other.optimizer.keywords == published.optimizer.keywords


def test_the_paper_s_victims_are_taken_where_they_are(fresh, small_cifar, monkeypatch):
    published = squares(16, seed=5)
    monkeypatch.setattr(data, "paper_victims", lambda path: published)
    found = fresh.victims(of(ATTACK, dataset="cifar10"))
    assert torch.equal(found.stored, victims(published, 4).stored)


def test_without_their_file_victims_come_from_the_training_part(fresh, small_cifar):
    found = fresh.victims(of(ATTACK, dataset="cifar10"))
    assert torch.equal(found.stored, victims(squares(40), 4).stored)


def test_victims_are_of_the_training_part_and_classes_take_turns(lab):
    found = lab.victims(replace(ATTACK, victims=12))
    train = data.photos().train
    rows = {row.numpy().tobytes() for row in train.stored}
    assert all(row.numpy().tobytes() in rows for row in found.stored)
    assert found.labels.bincount().tolist() == [2, 2, *[1] * 8]


# --- digests --------------------------------------------------------------------------


def test_a_digest_is_of_the_pixels_and_labels_that_a_cell_uses(small_cifar, tmp_path):
    def digest(cell, change=lambda splits: None):
        lab = Lab(work=tmp_path)
        change(lab.gallery._whole("cifar10"))
        return lab.digest(of(cell, dataset="cifar10"))

    def other_pixel(splits):
        splits.train.stored[:, 0, 0, 0] += 1

    def other_labels(splits):
        splits.train.labels[:] = splits.train.labels.flip(0)

    def other_test(splits):
        splits.test.stored[:, 0, 0, 0] += 1

    training = replace(TRAINING, train_pictures=40)
    trained = replace(TRAINED, training=of(training, dataset="cifar10"))
    for cell in (ATTACK, training, trained):
        assert digest(cell) == digest(cell)
        assert digest(cell, other_pixel) != digest(cell)
        assert digest(cell, other_labels) != digest(cell)
        changed = digest(cell, other_test) != digest(cell)
        assert changed == (cell is not ATTACK)


def test_as_many_victims_as_training_pictures_are_not_taken_for_them(lab):
    # Both are 20 of the same collection, and freed tensors give their address away.
    training = replace(TRAINING, train_pictures=20)
    attack = replace(ATTACK, victims=20)
    first = lab.digest(training).split("-")[0]
    assert lab.digest(attack) != first
    assert lab.digest(attack) == replace(lab, gallery=None).digest(attack)


@pytest.mark.parametrize("cell", EVERY_KIND.values(), ids=EVERY_KIND)
def test_provenance_names_the_pictures_that_were_used(cell, lab):
    sizes = [len(pictures) for pictures in lab.pictures(cell)]
    expected = {"training": [130, 20], "attack": [4], "noise": [4], "ats": [2]}
    assert sizes == expected[cell.kind]


def test_a_lab_travels_without_its_pictures(lab):
    lab.victims(ATTACK)
    packed = pickle.dumps(lab)
    assert len(packed) < 2_000
    again = pickle.loads(packed)
    assert (again.work, again.data, again.device) == (lab.work, lab.data, lab.device)
    assert again.digest(ATTACK) == lab.digest(ATTACK)
    assert lab.gallery.loaded  # the one that was packed keeps its own


# --- models and defenses --------------------------------------------------------------


def weights(model):
    return torch.cat([t.flatten() for t in model.state_dict().values()])


@pytest.mark.parametrize(
    ("setup", "build"),
    [
        (Setup("photos", "smlp", width=16), lambda g: smlp(width=16, generator=g)),
        (Setup("photos", "dmlp", width=16), lambda g: dmlp(width=16, generator=g)),
        (Setup("photos", "lenet", width=12), lambda g: lenet(generator=g)),
    ],
    ids=lambda value: getattr(value, "model", ""),
)
def test_models_are_the_library_s_with_the_setup_s_seed(setup, build, lab):
    like = lab.victims(ATTACK)
    model = lab.model(setup, like)
    assert torch.equal(weights(model), weights(build(stream(0, "model"))))
    assert torch.equal(weights(model), weights(lab.model(setup, like)))
    other = lab.model(replace(setup, seed=1), like)
    assert not torch.equal(weights(model), weights(other))


def test_the_pytorch_initialisation_is_another(lab):
    setup, like = Setup("photos", "lenet", width=12), lab.victims(ATTACK)
    published = weights(lab.model(setup, like))
    pytorch = weights(lab.model(replace(setup, init="pytorch"), like))
    assert published.shape == pytorch.shape
    assert published.std() > 2 * pytorch.std()


@pytest.mark.parametrize("model", MODELS)
def test_every_model_classifies_the_pictures_it_was_made_for(model, lab):
    like = lab.victims(ATTACK)
    width = 8 if MODELS[model].has_widths else None
    built = lab.model(Setup("photos", model, width=width), like)
    assert built(like.images).shape == (4, 10)


def test_precode_has_the_kl_of_bits(lab):
    # The authors' code divides nats by ln 2, so that is what beta weighs.
    model = lab.model(replace(SETUP, beta=1e-3), lab.victims(ATTACK))
    (bottleneck,) = (m for m in model.modules() if type(m) is VariationalBottleneck)
    assert bottleneck.beta == pytest.approx(1e-3 / math.log(2))
    assert bottleneck.beta == pytest.approx(1.4427e-3, rel=1e-4)


@pytest.mark.parametrize(
    ("places", "neighbours"),
    [
        (("before fc",), [("hidden", "fc")]),
        (("after features.activation1",), [("activation1", "hidden2")]),
        (("after features.activation1", "before fc"), [(), ()]),
    ],
)
def test_precode_stands_where_and_as_often_as_the_setup_says(places, neighbours, lab):
    setup = Setup("photos", "dmlp", "precode", width=16, k=4, places=places)
    model = lab.model(setup, lab.victims(ATTACK))
    found = [m for m in model.modules() if type(m) is VariationalBottleneck]
    assert len(found) == len(neighbours)
    order = [name for name, _ in model.named_modules()]
    first = next(n for n, m in model.named_modules() if m is found[0])
    assert order.index(first) > order.index("features")


def gradient(lab, defense):
    setup = Setup("photos", "smlp", defense, width=16)
    pictures = lab.victims(ATTACK)
    noise = lab.generator(setup, "noise")
    shared = observe(
        lab.model(setup, pictures),
        pictures.images[:, None],
        pictures.labels[:, None],
        defense=lab.perturbation(setup, noise),
    ).shared
    return torch.cat([dense(shared[name]).flatten(1) for name in shared], dim=1)


@pytest.mark.parametrize(("name", "std"), [("ng-2", 1e-2), ("ng-3", 1e-3)])
def test_noise_has_its_strength(name, std, lab):
    noise = gradient(lab, name) - gradient(lab, "none")
    assert noise.std().item() == pytest.approx(std, rel=0.02)


@pytest.mark.parametrize(("name", "share"), [("gc", 0.1), ("gc-90", 0.9)])
def test_compression_drops_its_share_of_the_smallest(name, share, lab, generator):
    plain = torch.randn(1000, generator=generator)
    prune = lab.perturbation(Setup("photos", "smlp", name), generator)
    pruned = dense(prune(from_list(["weight"], [plain]))["weight"])[0]
    assert (pruned == 0).sum() == 1000 * share
    assert torch.equal(pruned[pruned != 0], plain[pruned != 0])
    assert plain[pruned == 0].abs().max() < plain[pruned != 0].abs().min()


def test_streams_depend_on_seed_and_purpose_alone():
    drawn = {
        (seed, purpose): torch.rand(3, generator=stream(seed, purpose))
        for seed in (0, 1)
        for purpose in ("model", "noise", "attack")
    }
    again = torch.rand(3, generator=stream(1, "noise"))
    assert torch.equal(drawn[1, "noise"], again)
    assert len({tuple(values.tolist()) for values in drawn.values()}) == 6


def test_only_pictures_with_a_licence_may_be_stored(lab):
    cell = replace(ATTACK, victims=10, shows=True)
    pictures = lab.victims(cell)
    kept = storable(pictures, cell)
    names = [pictures.classes[pictures.labels[i]] for i in kept]
    assert len(kept) == 6
    assert "motorcycle" in pictures.classes
    assert "motorcycle" not in names
    assert storable(pictures, replace(cell, shows=False)) == []
    assert storable(pictures, of(cell, dataset="cifar10")) == []


def test_ats_victims_are_taken_like_the_others(lab):
    assert len(lab.victims(ATS)) == 2
