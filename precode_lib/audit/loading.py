"""Models, losses and examples by the names that a command line gives.

What a module does when it is imported is its own affair, but for two things: it may
not open a connection, and what it prints goes where messages go.
"""

import importlib
import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor, nn

from precode_lib.audit.findings import first_line
from precode_lib.audit.samples import Sample, sample
from precode_lib.bottleneck import quiet
from precode_lib.data import Loose, Normalisation, loose_pictures, measure

_TORCHVISION = "torchvision:"
_DRAWN = "The pictures lie in no class folders: their labels were drawn at random."


def named(text: str, what: str) -> Any:
    """What "my_app.model:make_model" names; it is imported from here or the path."""
    module_name, colon, attribute = text.partition(":")
    if not colon or not module_name or not attribute:
        raise ValueError(
            f"{what} is a module and a name in it, such as my_app.model:make_model; "
            f"got {text!r}."
        )
    try:
        with _at_home(), _guarded(f"importing {module_name}"):
            module = importlib.import_module(module_name)
    except ModuleNotFoundError as problem:
        raise ValueError(_no_module(module_name, problem)) from None
    found = module
    for part in attribute.split("."):
        if not hasattr(found, part):
            near = get_close_matches(part, dir(found), n=1, cutoff=0.5)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"{module_name} has no {attribute!r}.{hint}")
        found = getattr(found, part)
    return found


def function(text: str, what: str, takes: str) -> Callable:
    """A function by its name; `takes` says which arguments it will be given."""
    found = named(text, what)
    if not callable(found):
        kind = type(found).__name__
        raise ValueError(f"{what} {text!r} is a {kind}; a function of {takes} is due.")
    return found


def model(text: str, *, seed: int, classes: int | None = None) -> nn.Module:
    """A model by its name: of torchvision, or a function or class that makes one.

    Args:
        seed: of torch's global generator, from which most models draw their weights.
        classes: of a torchvision model.
    """
    if text.startswith(_TORCHVISION):
        maker = _torchvision(text.removeprefix(_TORCHVISION), classes)
    else:
        maker = named(text, "a model")
    if isinstance(maker, nn.Module):
        return maker
    if not callable(maker):
        kind = type(maker).__name__
        raise ValueError(f"{text!r} is a {kind}: name a model, or what makes one.")
    _check_needs_nothing(maker, text)
    with _guarded(f"calling {text}"), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made = maker()
    if not isinstance(made, nn.Module):
        raise ValueError(
            f"{text} returned {type(made).__name__}; a torch.nn.Module is due."
        )
    return made


def _check_needs_nothing(maker: Callable, text: str) -> None:
    try:
        inspect.signature(maker).bind()
    except TypeError as problem:
        raise ValueError(
            f"{text} is called without arguments, and needs some ({problem}); write a "
            "function of none that calls it."
        ) from None
    except ValueError:  # not every callable tells
        return


def _torchvision(name: str, classes: int | None) -> Callable[[], nn.Module]:
    from torchvision.models import get_model, list_models

    names = list_models()
    if name not in names:
        near = get_close_matches(name, names, n=3, cutoff=0.4)
        raise ValueError(
            f"torchvision has no model {name!r}; near it are {', '.join(near) or '-'}."
        )
    options = {} if classes is None else {"num_classes": classes}
    return lambda: get_model(name, weights=None, **options)


def weights(made: nn.Module, file: Path) -> nn.Module:
    """The model with the weights of a state dict; nothing else is unpickled."""
    if not file.exists():
        raise FileNotFoundError(f"there are no weights at {file.absolute()}.")
    try:
        state = torch.load(file, weights_only=True, map_location="cpu")
    except (UnpicklingError, RuntimeError, EOFError, ValueError) as problem:
        raise ValueError(
            f"{file} holds no state dict that can be read without running code from "
            f"it ({first_line(problem)}). Save torch.save(model.state_dict(), ...)."
        ) from None
    if isinstance(state, dict) and "state_dict" in state:
        state = state["state_dict"]
    if not isinstance(state, dict) or not all(
        isinstance(each, Tensor) for each in state.values()
    ):
        raise ValueError(
            f"{file} holds {type(state).__name__}, not a state dict of names and "
            "tensors: save model.state_dict()."
        )
    try:
        made.load_state_dict(state)
    except RuntimeError as problem:
        raise ValueError(
            f"the weights in {file} are not this model's: {first_line(problem, 2)}"
        ) from None
    return made


def pictures(
    path: Path,
    *,
    size: int | None = None,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
    most: int = 200,
) -> Sample:
    """The pictures of a folder, in class folders or loose, as a model takes them.

    What is no picture is left out and counted. Without a mean and a standard deviation
    those of the pictures themselves are taken.
    """
    found = loose_pictures(path, size=size, most=most)
    normalisation = None
    if (mean is None) != (std is None):
        raise ValueError("give both --mean and --std, or neither.")
    if mean is not None:
        normalisation = Normalisation(mean=mean, std=std)
    return _as_sample(found, normalisation)


def _as_sample(found: Loose, normalisation: Normalisation | None) -> Sample:
    said = list(found.notes)
    if normalisation is None:
        normalisation = measure(found.pictures)
        said.append(
            "Normalised by the pictures' own mean and standard deviation: give --mean "
            "and --std if the model wants others."
        )
    made = sample(replace(found.pictures, normalisation=normalisation))
    notes = (*made.notes, *said)
    return replace(made, is_labelled=found.is_labelled, notes=notes)


def data(text: str) -> Sample:
    """What a function of one's own gives: (inputs, labels), Pictures or Examples."""
    maker = named(text, "--data")
    if callable(maker):
        _check_needs_nothing(maker, text)
        with _guarded(f"calling {text}"):
            maker = maker()
    try:
        return sample(maker, name=text)
    except TypeError as problem:
        raise ValueError(f"{text}: {problem}") from None


def fitted(clients_have: Sample, made: nn.Module, *, seed: int) -> Sample:
    """The sample with labels that this model has; loose pictures have none."""
    if clients_have.is_labelled or _DRAWN in clients_have.notes:
        return clients_have
    with torch.no_grad(), quiet(made):
        outputs = made(clients_have.inputs[:2])
    if not isinstance(outputs, Tensor) or outputs.dim() != 2:
        raise ValueError(
            "the pictures lie in no class folders and the model returns no logits (N, "
            "classes), so their labels are unknown; give --data with labels."
        )
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(outputs.shape[1], (len(clients_have),), generator=generator)
    return replace(clients_have, labels=drawn, notes=(*clients_have.notes, _DRAWN))


@contextmanager
def _at_home() -> Iterator[None]:
    """Import from the folder that the command was given in, as `python` does."""
    here = str(Path.cwd())
    added = here not in sys.path
    if added:
        sys.path.insert(0, here)
    try:
        yield
    finally:
        if added and here in sys.path:
            sys.path.remove(here)


@contextmanager
def _guarded(doing: str) -> Iterator[None]:
    """No connections, no words on stdout, and every problem in one line."""
    try:
        with redirect_stdout(sys.stderr), _without_network():
            yield
    except ModuleNotFoundError:
        raise
    except SystemExit as problem:
        raise ValueError(f"{doing} ended the program ({problem}).") from None
    except Exception as problem:
        where = _where(problem)
        raise ValueError(
            f"{doing} failed{where}: {type(problem).__name__}: {first_line(problem)}"
        ) from None


def _where(problem: BaseException) -> str:
    """The line of the user's own code, if it is known."""
    trace, place = problem.__traceback__, None
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if "precode_lib" not in file and not file.startswith("<"):
            place = f" in {Path(file).name}, line {trace.tb_lineno}"
        trace = trace.tb_next
    return place or ""


class _Network:
    """Whether connections are refused just now; Python's audit hooks stay for good."""

    refused = False
    hooked = False


def _refuse(event: str, arguments: tuple, state: type = _Network) -> None:
    # The hook outlives the module's own names when Python ends.
    if state.refused and event in ("socket.connect", "socket.getaddrinfo"):
        raise ConnectionRefusedError(
            "it opens a network connection; an audit downloads nothing: do that before"
        )


@contextmanager
def _without_network() -> Iterator[None]:
    if not _Network.hooked:
        sys.addaudithook(_refuse)
        _Network.hooked = True
    _Network.refused = True
    try:
        yield
    finally:
        _Network.refused = False


def _no_module(name: str, problem: ModuleNotFoundError) -> str:
    if problem.name and name.split(".")[0] == problem.name.split(".")[0]:
        return (
            f"there is no module {problem.name!r}, neither in {Path.cwd()} nor among "
            "what is installed."
        )
    return f"{name} imports {problem.name!r}, which is not installed."
