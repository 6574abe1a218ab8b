"""One pass through a model and its loss: what runs, and what is kept of it.

`Losses` is what is run, `record` lists the calls of the layers on the way, and
`differentiable` sees to it that the pass has derivatives, and second ones.
"""

import copy
import threading
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.func import functional_call, replace_all_batch_norm_modules_
from torch.nn.modules.batchnorm import _BatchNorm

from precode_lib.bottleneck import Loss


class Losses(nn.Module):
    """The loss as a module, for `functional_call`; holds the model, changes nothing."""

    def __init__(self, model: nn.Module, loss: Loss):
        super().__init__()
        self.model, self.loss = model, loss
        # Not self.train(), which would set the mode of every layer of the model.
        self.training = model.training
        self.layers = list(model.modules())  # walking the tree costs at every call

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        """The loss of each example: (N,)."""
        return self.loss(self.model, images, labels)

    def run(self, images: Tensor, labels: Tensor) -> Tensor:
        """The same, checked; the model's buffers stay as they are."""
        if any(layer.training for layer in self.layers):
            copies = {n: b.clone() for n, b in self.named_buffers()}
            losses = functional_call(self, copies, (images, labels))
        else:
            losses = self(images, labels)
        if losses.shape != images.shape[:1]:
            raise ValueError(
                f"the loss must return one number per example, ({len(images)},); "
                f"got shape {tuple(losses.shape)}. Do not average in it."
            )
        return losses


def pure_losses(model: nn.Module, loss: Loss) -> Losses:
    """`Losses` that torch.func can transform: no buffer is updated on the way."""
    if any(isinstance(m, _BatchNorm) and m.training for m in model.modules()):
        model = copy.deepcopy(model)
        for module in model.modules():
            # One by one: those in evaluation mode keep their running statistics.
            if isinstance(module, _BatchNorm) and module.training:
                replace_all_batch_norm_modules_(module)
    return Losses(model, loss)


@contextmanager
def differentiable() -> Iterator[None]:
    """Record a graph, and use the attention that has a second derivative."""
    math = torch.nn.attention.SDPBackend.MATH
    with torch.enable_grad(), torch.nn.attention.sdpa_kernel(math):
        yield


def random_state(like: Tensor) -> list[Tensor]:
    """Where torch's global generators are that `like`'s device draws from."""
    states = [torch.get_rng_state()]
    if like.is_cuda:
        states.append(torch.cuda.get_rng_state(like.device))
    return states


def set_random_state(states: list[Tensor], like: Tensor) -> None:
    """Put them back there."""
    torch.set_rng_state(states[0])
    if like.is_cuda:
        torch.cuda.set_rng_state(states[1], like.device)


@contextmanager
def unhurried() -> Iterator[None]:
    """Let torch.func be slow where it has no batched form, without a warning."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "There is a performance drop")
        yield


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that learn, by name."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def first_parameter(model: nn.Module) -> nn.Parameter:
    """The parameter that tells the model's device and dtype."""
    for parameter in model.parameters():
        return parameter
    raise ValueError("the model has no parameters: there is nothing to train.")


def mixes_examples(modules: nn.Module | Iterable[nn.Module]) -> bool:
    """Batch statistics tie the victims of one pass together."""
    if isinstance(modules, nn.Module):
        modules = modules.modules()
    return any(
        isinstance(m, _BatchNorm) and (m.training or m.running_mean is None)
        for m in modules
    )


class LayerCall:
    """One call of one layer: what went in and what came out."""

    def __init__(self, layer: nn.Module, x: Tensor | None, output: Tensor):
        self.layer, self.x, self.output = layer, x, output
        self._versions = self._current_versions()

    def is_by_example(self, examples: int) -> bool:
        """Whether the first axis counts examples (not tokens, say)."""
        return self.x is not None and len(self.x) == len(self.output) == examples

    def was_changed(self) -> bool:
        """Whether a later layer has written over the input or the output."""
        return self._versions != self._current_versions()

    def num_bytes(self) -> int:
        """What the input and the output take."""
        return sum(t.numel() * t.element_size() for t in self._tensors())

    def _tensors(self) -> list[Tensor]:
        return [t for t in (self.x, self.output) if t is not None]

    def _current_versions(self) -> list[int]:
        # torch counts each tensor's in-place changes, for its own backward pass.
        return [t._version for t in self._tensors()]


@contextmanager
def record(layers: Iterable[nn.Module], in_place: bool) -> Iterator[list[LayerCall]]:
    """List this thread's calls of these layers; removes its hooks whatever happens.

    Args:
        layers: which to listen to.
        in_place: whether later layers overwrite what is recorded, which then is copies.
    """
    calls: list[LayerCall] = []
    here = threading.get_ident()

    def hook(layer: nn.Module, inputs: tuple, output: Tensor) -> Tensor | None:
        # The reader's next cell may run the same model while a slider computes.
        if threading.get_ident() != here:
            return None
        x = inputs[0] if inputs else None
        calls.append(LayerCall(layer, x.clone() if in_place else x, output))
        return output.clone() if in_place else None

    with hooked(layers, hook):
        yield calls


@contextmanager
def hooked(layers: Iterable[nn.Module], hook) -> Iterator[None]:
    """Let this forward hook see these layers' calls; takes it off whatever happens."""
    # Before the layer's own hooks: a rule speaks of what the layer itself returned.
    handles = [m.register_forward_hook(hook, prepend=True) for m in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
