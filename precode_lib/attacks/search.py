"""One search engine for every attack that optimises pictures until gradients agree.

`Recipe` says what is minimised and how; `Search` is an iterator over the steps of V
victims at once. It prints nothing and changes neither the observation nor its model:
whoever loops over it owns the progress bar, the checkpoints and the stop button.
"""

from collections.abc import Sequence
from math import inf

import torch
from torch import Tensor

from precode_lib.attacks.noise import SharedNoise
from precode_lib.attacks.observed import check_observation
from precode_lib.attacks.optimizers import optimize
from precode_lib.attacks.recipe import Recipe, check_per_victim, check_recipe
from precode_lib.attacks.reports import (
    CONVERGED,
    DIVERGED,
    EXHAUSTED,
    OUTCOMES,
    PLATEAU,
    RUNNING,
    AttackStep,
    Reconstruction,
)
from precode_lib.basics.resuming import Resumable
from precode_lib.basics.validation import check_generator
from precode_lib.federated import Observation
from precode_lib.gradients import Gradients

# Largest activations and gradients that one evaluation may hold, in bytes.
CHUNK_BYTES = 2**30


class Search(Resumable[AttackStep]):
    """The steps of a recipe against an observation, all victims at once.

    Results depend on the generator's seed alone (on a CPU bit by bit), and not on
    `chunk_bytes`. Bottlenecks get fresh noise at every step, the same for every
    evaluation within it. Dropout in training mode is the exception to both: torch draws
    its masks from the global generator, anew in every evaluation.

    Args:
        observation: all that the attacker knows.
        recipe: what to minimise and how.
        generator: draws the starts and the bottlenecks' noise.
        start: images (V, B, C, H, W) to begin with, instead of the recipe's; or
            whatever else the examples are.
        chunk_bytes: how much memory one evaluation may take, about.
    """

    looks_every = 10  # a look at the objective waits for a GPU

    def __init__(
        self,
        observation: Observation,
        recipe: Recipe,
        *,
        generator: torch.Generator,
        start: Tensor | None = None,
        chunk_bytes: int = CHUNK_BYTES,
    ):
        check_observation(observation)
        check_recipe(recipe)
        check_generator(generator)
        self.observation, self.recipe = observation, recipe
        self.iteration = 0
        self._chunk_bytes = chunk_bytes
        self._client = observation.client()
        self._noise = SharedNoise(generator)
        self._box = _box(observation) if recipe.boxed else None
        self._labels = _labels(observation, recipe)
        first = _first_images(observation, recipe, generator, start)
        count, device = len(first), first.device
        self._best, self._last = first.clone(), first.clone()
        self._best_objective = first.new_full((count,), inf)
        self._last_objective = self._best_objective.clone()
        self._waited = torch.zeros(count, dtype=torch.int64, device=device)
        self._made = torch.zeros_like(self._waited)
        self._outcome = torch.zeros_like(self._waited)
        self._logits = _first_logits(observation, recipe, generator, count)
        self._active = torch.arange(count, device=device)
        variables = [first] + ([] if self._logits is None else [self._logits.clone()])
        self._optimizer = optimize(recipe.optimizer, variables)
        self._aim()

    def __repr__(self) -> str:
        made, most = self.iteration, self.recipe.iterations
        return (
            f"Search({self.recipe.name}, {self.observation.num_victims} victims, "
            f"{made} of {most} steps made, {len(self._active)} searching)"
        )

    # --- the iterator -----------------------------------------------------------------

    def _left(self) -> int:
        running = len(self._active) > 0
        return self.recipe.iterations - self.iteration if running else 0

    def _advance(self) -> AttackStep:
        """Evaluate the current images, report them, and move on."""
        self._noise.next_step()
        variables = [v.detach().clone() for v in self._optimizer.variables]
        factor = self.recipe.schedule(self.iteration, self.recipe.iterations)
        objective = self._optimizer.step(self._evaluate, factor)
        if self._box is not None:
            self._optimizer.bound(*self._box)
        self._record(objective.detach(), variables)
        self.iteration += 1
        self._retire()
        return self._report()

    @property
    def result(self) -> Reconstruction:
        """What the search has found so far."""
        chosen = self._winners(self._best_objective)
        outcome = self._outcome[chosen].tolist()
        return Reconstruction(
            attack=self.recipe.name,
            images=self._best[chosen].clone(),
            objective=self._best_objective[chosen].clone(),
            labels=self._found_labels(chosen),
            last_images=self._last[chosen].clone(),
            last_objective=self._last_objective[chosen].clone(),
            iterations=self._made[chosen].clone(),
            outcome=tuple(OUTCOMES[code] for code in outcome),
            normalisation=self.observation.normalisation,
        )

    # --- one evaluation ---------------------------------------------------------------

    def _evaluate(self, variables, part: slice) -> tuple[Tensor, list[Tensor]]:
        """Objectives of these active searches, and their slopes, chunk by chunk."""
        self._noise.rewind()
        start, stop, _ = part.indices(len(self._active))
        objectives, slopes = [], []
        for chunk, target in self._targets:
            low, high = max(chunk.start, start), min(chunk.stop, stop)
            if low >= high:
                continue
            inner = slice(low - chunk.start, high - chunk.start)
            aim = target if high - low == target.num_victims else target.take(inner)
            pieces = [
                v.detach()[low - start : high - start].requires_grad_()
                for v in variables
            ]
            objective = self._objective(pieces, slice(low, high), aim)
            objectives.append(objective.detach())
            slopes.append(torch.autograd.grad(objective.sum(), pieces))
        slopes = [_joined(rows) for rows in zip(*slopes, strict=True)]
        if self.recipe.signed:
            slopes[0] = slopes[0].sign()
        return _joined(objectives), slopes

    def _objective(
        self, variables: list[Tensor], part: slice, target: Gradients
    ) -> Tensor:
        recipe, images = self.recipe, variables[0]
        searches = self._active[part]
        labels = (
            variables[1].softmax(-1)
            if self._labels is None
            else self._labels[searches % self.observation.num_victims]
        )
        source = self._noise.of(searches, len(self._best))
        guess = self._client(images, labels, noise=source)
        if recipe.layers is not None:
            guess = recipe.layers(guess)
        if len(guess) > len(target):  # a defense withheld the others
            guess = Gradients({name: guess[name] for name in target})
        options = {} if self._weights is None else {"weights": self._weights}
        total = recipe.distance(guess, target, **options)
        self._check("distance", total, images)
        if recipe.prior_weight:
            prior = recipe.prior(images)
            self._check("prior", prior, images)
            total = total + recipe.prior_weight * prior
        if recipe.label_weight:
            source = self._noise.of(searches, len(self._best))
            logits = self._client.logits(images, noise=source)
            label_term = recipe.label_term(logits, labels)
            self._check("label_term", label_term, images)
            total = total + recipe.label_weight * label_term
        return total

    def _check(self, name: str, values: Tensor, images: Tensor) -> None:
        if self.iteration == 0:  # what is right once is right ever after
            check_per_victim(values, name, len(images))

    def _aim(self) -> None:
        """Cut the targets of the active searches into chunks that fit into memory."""
        observation, active = self.observation, self._active
        shared = observation.shared
        if self.recipe.layers is not None:
            shared = self.recipe.layers(shared)
            if not isinstance(shared, Gradients):
                kind = type(shared).__name__
                raise TypeError(f"layers must return Gradients, got {kind}.")
        self._weights = None
        if self.recipe.layer_weights is not None:
            self._weights = self.recipe.layer_weights(shared)
        if len(active) != shared.num_victims or self.recipe.restarts > 1:
            shared = shared.take(active % observation.num_victims)
        labels = self._logits if self._labels is None else self._labels
        size = self._client.victims_within(
            self._chunk_bytes, self._best[:1], labels[:1]
        )
        starts = range(0, len(active), size)
        parts = [slice(s, min(s + size, len(active))) for s in starts]
        whole = len(parts) == 1
        self._targets = [(p, shared if whole else shared.take(p)) for p in parts]

    # --- bookkeeping ------------------------------------------------------------------

    def _record(self, objective: Tensor, variables: list[Tensor]) -> None:
        images = variables[0]
        before = self._now(self._best_objective)
        better = objective < before
        # `where`, not a mask as index: on a GPU that would wait for the result.
        best = torch.where(_beside(better, images), images, self._now(self._best))
        self._best = self._with(self._best, best)
        lower = torch.where(better, objective, before)
        self._best_objective = self._with(self._best_objective, lower)
        if self._logits is not None:
            rows = _beside(better, variables[1])
            logits = torch.where(rows, variables[1], self._now(self._logits))
            self._logits = self._with(self._logits, logits)
        self._last = self._with(self._last, images)
        self._last_objective = self._with(self._last_objective, objective)
        self._made = self._with(self._made, self._now(self._made) + 1)
        waited = torch.where(better, 0, self._now(self._waited) + 1)
        self._waited = self._with(self._waited, waited)

    def _now(self, store: Tensor) -> Tensor:
        """The values of the active searches."""
        return store if len(self._active) == len(store) else store[self._active]

    def _with(self, store: Tensor, values: Tensor) -> Tensor:
        """The store with the active searches' values; never changed in place."""
        if len(values) == len(store):
            return values
        return store.index_copy(0, self._active, values)

    def _retire(self) -> None:
        """Let the searches go that have converged, waited too long or met a NaN."""
        recipe, active = self.recipe, self._active
        outcome = torch.full_like(active, RUNNING)
        if self.iteration == recipe.iterations:
            outcome[:] = EXHAUSTED
        if recipe.patience is not None:
            outcome[self._waited[active] >= recipe.patience] = PLATEAU
        if recipe.tolerance is not None:
            outcome[self._last_objective[active] < recipe.tolerance] = CONVERGED
        outcome[~self._last_objective[active].isfinite()] = DIVERGED
        self._outcome[active] = outcome
        going = outcome == RUNNING
        if not bool(going.all()):
            self._active = active[going]
            if len(self._active):
                self._optimizer.keep(going)
                self._aim()

    def _report(self) -> AttackStep:
        chosen = self._winners(self._last_objective)
        return AttackStep(
            iteration=self.iteration - 1,
            objective=self._last_objective[chosen],
            images=self._last[chosen],
            num_active=len(self._active),
        )

    def _winners(self, objective: Tensor) -> Tensor | slice:
        """For each victim, which of its restarts has the lowest objective."""
        num_victims = self.observation.num_victims
        if self.recipe.restarts == 1:
            return slice(None)
        table = objective.nan_to_num(nan=inf).view(-1, num_victims)
        victims = torch.arange(num_victims, device=objective.device)
        return table.argmin(0) * num_victims + victims

    def _found_labels(self, chosen: Tensor | slice) -> Tensor:
        if self._logits is None:
            return self._labels.clone()
        return self._logits[chosen].argmax(-1)

    def _bar(self) -> dict:
        return {"desc": self.recipe.name, "unit": "step"}

    def _note(self, step: AttackStep) -> str:
        middle = step.objective.median().item()
        return f"objective {middle:.3g}, {step.num_active} searching"

    # --- checkpoints ------------------------------------------------------------------

    def state_dict(self) -> dict:
        """Everything that `load_state_dict` needs to go on as if never interrupted.

        Tensors, lists, numbers and strings only: `torch.save` it, load it with
        `weights_only=True`. The observation and the recipe are not part of it.
        """
        tensors = {name: getattr(self, name).clone() for name in _TENSORS}
        logits = None if self._logits is None else self._logits.clone()
        return {
            "recipe": self.recipe.name,
            "iteration": self.iteration,
            "tensors": tensors,
            "logits": logits,
            "optimizer": self._optimizer.state_dict() if len(self._active) else None,
            "generator": self._noise.generator.get_state(),
        }

    def load_state_dict(self, state: dict) -> None:
        """Go on from a `state_dict` of a search of the same recipe and observation."""
        if not isinstance(state, dict) or "tensors" not in state:
            raise ValueError("this is no state of a search: state_dict() makes one.")
        shape = tuple(state["tensors"]["_best"].shape)
        if state["recipe"] != self.recipe.name or shape != tuple(self._best.shape):
            raise ValueError(
                f"this state is of {state['recipe']!r} over images {shape}, the search "
                f"is {self.recipe.name!r} over {tuple(self._best.shape)}."
            )
        if (state["logits"] is None) != (self._logits is None):
            raise ValueError(
                "one of this state and this search looks for the labels too, the other "
                "has them from a rule; give both the same `labels`."
            )
        device = self._best.device
        for name in _TENSORS:
            setattr(self, name, state["tensors"][name].to(device).clone())
        if state["logits"] is not None:
            self._logits = state["logits"].to(device).clone()
        self.iteration = state["iteration"]
        self._noise.generator.set_state(state["generator"])
        if len(self._active):
            self._optimizer.load_state_dict(state["optimizer"])
            self._aim()


_TENSORS = (
    "_best", "_last", "_best_objective", "_last_objective", "_waited", "_made",
    "_outcome", "_active",
)  # fmt: skip


def _joined(pieces: Sequence[Tensor]) -> Tensor:
    return pieces[0] if len(pieces) == 1 else torch.cat(list(pieces))


def _beside(mask: Tensor, values: Tensor) -> Tensor:
    """(V,) shaped to stand beside (V, ...)."""
    return mask.view(-1, *[1] * (values.dim() - 1))


def _box(observation: Observation) -> tuple[Tensor, Tensor]:
    if observation.normalisation is None:
        raise ValueError(
            "a boxed search needs to know the range of real pictures: give `observe` a "
            "normalisation, or search with boxed=False."
        )
    like = next(iter(observation.model.parameters()))
    lower, upper = observation.normalisation.box
    return lower.to(like), upper.to(like)


def _labels(observation: Observation, recipe: Recipe) -> Tensor | None:
    """The labels (V, B) that the recipe finds; None if it searches for them."""
    if recipe.labels is None:
        return None
    labels = recipe.labels(observation)
    expected = (observation.num_victims, observation.num_examples)
    if tuple(labels.shape[:2]) != expected:
        raise ValueError(
            f"the recipe's labels must be (V, B) = {expected}, got "
            f"{tuple(labels.shape)}."
        )
    return labels


def _first_images(
    observation: Observation,
    recipe: Recipe,
    generator: torch.Generator,
    start: Tensor | None,
) -> Tensor:
    """The starts of all searches, restart by restart: (restarts * V, B, C, H, W)."""
    shape = (
        observation.num_victims, observation.num_examples, *observation.image_shape
    )  # fmt: skip
    like = next(iter(observation.model.parameters()))
    if start is None:
        drawn = [recipe.start(shape, generator) for _ in range(recipe.restarts)]
        return torch.cat(drawn).to(like)
    if not isinstance(start, Tensor):
        kind = type(start).__name__
        raise TypeError(f"start must be a Tensor {shape}, got {kind}.")
    if tuple(start.shape) != shape or recipe.restarts > 1:
        raise ValueError(
            f"start must be images {shape}, one start per victim (restarts=1); got "
            f"{tuple(start.shape)} for {recipe.restarts} restarts."
        )
    return start.detach().to(like).clone()


def _first_logits(
    observation: Observation, recipe: Recipe, generator: torch.Generator, count: int
) -> Tensor | None:
    """Where a search for the labels begins: standard normal (searches, B, classes)."""
    if recipe.labels is not None:
        return None
    if observation.num_classes is None:
        raise ValueError(
            "a search for the labels needs a model that returns logits (N, classes); "
            "here the labels have another form: search with labels=known_labels."
        )
    like = next(iter(observation.model.parameters()))
    shape = (count, observation.num_examples, observation.num_classes)
    return torch.randn(shape, generator=generator, device=generator.device).to(like)
