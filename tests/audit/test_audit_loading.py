"""Models, losses, weights, pictures by name: each problem is one line with a cure."""

import textwrap

import pytest
import torch
from PIL import Image
from torch import nn

from precode_lib.audit import loading, sample
from precode_lib.audit.soundness import check_runs
from precode_lib.data import loose_pictures


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Write a module into the folder that commands are given in; its name."""
    monkeypatch.chdir(tmp_path)
    made = []

    def write(text: str) -> str:
        name = f"audited_{len(made)}_{tmp_path.name.replace('-', '_')}"
        made.append(name)
        (tmp_path / f"{name}.py").write_text(textwrap.dedent(text))
        return name

    return write


def problem(call, *arguments, **options) -> str:
    with pytest.raises((ValueError, FileNotFoundError)) as caught:
        call(*arguments, **options)
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_a_function_a_class_and_a_ready_model_are_models(module):
    name = module(
        """
        from torch import nn
        def make(): return nn.Linear(3, 2)
        class Net(nn.Linear):
            def __init__(self): super().__init__(3, 2)
        ready = make()
        class there:
            made = ready
        """
    )
    for what in ("make", "Net", "ready", "there.made"):
        assert isinstance(loading.model(f"{name}:{what}", seed=0), nn.Linear)


def test_the_seed_draws_the_weights_and_the_global_generator_stays(module):
    name = module("from torch import nn\ndef make(): return nn.Linear(3, 2)\n")
    state = torch.get_rng_state()
    weights = [loading.model(f"{name}:make", seed=s).weight for s in (0, 0, 1)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("raise RuntimeError('no such disk')", "line 2: RuntimeError: no such disk"),
        ("import not_there_at_all", "imports 'not_there_at_all', which is not inst"),
        ("import sys; sys.exit(3)", "ended the program"),
        ("def make(size): pass", "needs some"),
        ("def make(): raise KeyError('a')", "KeyError"),
        ("def make(): return 3", "returned int"),
        ("make = 7", "name a model, or what makes one"),
        ("maker = 7", "Did you mean 'maker'?"),
        ("def make(: pass", "SyntaxError"),
    ],
)
def test_a_module_that_does_not_give_a_model_says_why_in_one_line(module, text, says):
    name = module(f"\n{text}\n")
    assert says in problem(loading.model, f"{name}:make", seed=0)


@pytest.mark.parametrize("when", ["import", "call"])
def test_a_connection_is_refused_and_the_network_is_free_again(module, when):
    reach = "import socket; socket.create_connection(('127.0.0.1', 9), timeout=1)"
    text = f"{reach}\n" if when == "import" else f"def make():\n    {reach}\n"
    name = module(text)
    said = problem(loading.model, f"{name}:make", seed=0)
    assert "an audit downloads nothing" in said
    import socket

    server = socket.create_server(("127.0.0.1", 0))
    with server, socket.create_connection(server.getsockname(), timeout=5):
        pass


def test_what_a_module_prints_does_not_stand_among_the_results(module, capsys):
    name = module(
        """
        from torch import nn
        print("hello")
        def make():
            print("there")
            return nn.Linear(1, 1)
        """
    )
    loading.model(f"{name}:make", seed=0)
    assert capsys.readouterr().out == ""


def test_names_that_are_none(module):
    module("")
    assert "my_app.model:make_model" in problem(loading.model, "model.py", seed=0)
    assert "no module" in problem(loading.model, "nowhere_at_all:make", seed=0)
    said = problem(loading.model, "torchvision:resnet81", seed=0)
    assert "resnet18" in said


def test_a_torchvision_model_by_its_name():
    made = loading.model("torchvision:squeezenet1_1", seed=0, classes=3)
    assert made.num_classes == 3


def test_weights_come_from_a_state_dict_and_from_nothing_else(tmp_path):
    good, net = tmp_path / "good.pt", nn.Linear(3, 2)
    torch.save(net.state_dict(), good)
    loaded = loading.weights(nn.Linear(3, 2), good)
    assert torch.equal(loaded.weight, net.weight)
    torch.save({"state_dict": net.state_dict(), "epoch": 3}, good)
    assert torch.equal(loading.weights(nn.Linear(3, 2), good).weight, net.weight)

    whole, other, junk = (tmp_path / n for n in ("whole.pt", "other.pt", "junk.pt"))
    torch.save(net, whole)
    torch.save([1, 2], other)
    junk.write_bytes(b"no weights")
    assert "without running code" in problem(loading.weights, net, whole)
    assert "not a state dict" in problem(loading.weights, net, other)
    assert "no state dict" in problem(loading.weights, net, junk)
    assert "not this model's" in problem(loading.weights, nn.Linear(4, 2), good)
    assert "no weights at" in problem(loading.weights, net, tmp_path / "none.pt")


@pytest.fixture
def folder(tmp_path):
    """Twelve pictures in two classes, one of them damaged."""
    for number in range(12):
        place = tmp_path / "pictures" / ("cat", "dog")[number % 2]
        place.mkdir(parents=True, exist_ok=True)
        colour = (20 * number, 255 - 20 * number, 128)
        Image.new("RGB", (9, 8), colour).save(place / f"{number:02}.png")
    (tmp_path / "pictures" / "cat" / "00.png").write_bytes(b"\x89PNG cut short")
    (tmp_path / "pictures" / "cat" / "notes.txt").write_text("not a picture")
    return tmp_path / "pictures"


def test_pictures_in_class_folders_come_class_by_class_and_the_damaged_is_told(folder):
    found = loose_pictures(folder)
    assert len(found.pictures) == 11 and found.is_labelled
    assert found.pictures.classes == ("cat", "dog")
    # In turns, and the first cat is the damaged one.
    assert found.pictures.labels.tolist() == [1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1]
    assert "1 of 12 files" in found.notes[0] and "cat/00.png" in found.notes[0]
    taken = loading.pictures(folder, size=8)
    assert taken.pixels.shape == (11, 3, 8, 8) and taken.kind == "picture"
    flat = taken.inputs.transpose(0, 1).flatten(1)
    assert flat.mean(1).abs().max() < 1e-5  # normalised by their own mean
    assert any("their own mean" in n or "own mean" in n for n in taken.notes)


def test_loose_pictures_get_labels_that_the_model_has(tmp_path):
    for number in range(5):
        Image.new("L", (8, 8), 50 * number).save(tmp_path / f"{number}.png")
    taken = loading.pictures(tmp_path, mean=(0.5,), std=(0.5,))
    assert taken.inputs.shape == (5, 1, 8, 8)
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    labelled = [loading.fitted(taken, net, seed=s) for s in (0, 0, 1)]
    assert labelled[0].labels.min() >= 0 and labelled[0].labels.max() < 3
    assert torch.equal(labelled[0].labels, labelled[1].labels)
    assert "drawn at random" in labelled[0].notes[-1]
    assert loading.fitted(labelled[0], net, seed=5) is labelled[0]


def test_folders_that_are_none(tmp_path, folder):
    assert "nothing at" in problem(loading.pictures, tmp_path / "nowhere")
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "no picture that can be read (none)" in problem(loading.pictures, empty)
    (empty / "a.jpg").write_bytes(b"junk")
    assert "1 damaged" in problem(loading.pictures, empty)
    one = folder / "dog" / "01.png"
    assert "a folder of pictures is wanted" in problem(loading.pictures, one)
    Image.new("RGB", (5, 5)).save(folder / "dog" / "small.png")
    assert "one size" in problem(loading.pictures, folder)
    assert "both --mean" in problem(loading.pictures, folder, size=8, mean=(0.5,))


class Counting(nn.Linear):
    """Changes a plain attribute at every call."""

    calls = 0

    def forward(self, x):
        self.calls += 1
        return super().forward(x) * self.calls


class Drifting(nn.Linear):
    """Changes its own weights at every call."""

    def forward(self, x):
        with torch.no_grad():
            self.weight.mul_(0.5)
        return super().forward(x)


def test_a_model_that_changes_itself_is_refused():
    taken = sample((torch.randn(4, 3), torch.zeros(4).long()))
    assert "changes itself" in problem(check_runs, Counting(3, 2), taken)
    assert "own parameter" in problem(check_runs, Drifting(3, 2), taken)
    shaky = nn.Sequential(nn.Dropout(0.5), nn.BatchNorm1d(3), nn.Linear(3, 2)).train()
    check_runs(shaky, taken)  # draws and remembers, as layers may


def test_a_model_for_other_examples_is_refused():
    taken = sample((torch.randn(4, 3), torch.zeros(4).long()))
    assert "does not take" in problem(check_runs, nn.Linear(4, 2), taken)
    broken = nn.Linear(3, 2)
    nn.init.constant_(broken.bias, float("nan"))
    assert "NaN" in problem(check_runs, broken, taken)


def test_data_of_ones_own(module):
    name = module(
        """
        import torch
        def rows(): return torch.randn(6, 4), torch.rand(6)
        def several(): return (torch.randn(6, 4), torch.randn(6, 2)), torch.zeros(6)
        def tokens(): return torch.ones(6, 4).long(), torch.zeros(6).long()
        def wrong(): return torch.randn(6, 4)
        def uneven(): return torch.randn(6, 4), torch.zeros(5)
        """
    )
    kinds = {w: loading.data(f"{name}:{w}").kind for w in ("rows", "several", "tokens")}
    assert kinds == {"rows": "row", "several": "example", "tokens": "tokens"}
    assert "(inputs, labels)" in problem(loading.data, f"{name}:wrong")
    assert "one for each of the 5 labels" in problem(loading.data, f"{name}:uneven")
