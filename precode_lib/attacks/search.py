"""One search engine for every attack that optimises pictures until gradients agree.

`Recipe` says what is minimised and how; `Search` is an iterator over the steps of V
victims at once. It prints nothing and changes neither the observation nor its model:
whoever loops over it owns the progress bar, the checkpoints and the stop button.
"""

from collections.abc import Sequence
from functools import partial
from math import inf

import torch
from torch import Tensor

from precode_lib.attacks.hidden import Sites
from precode_lib.attacks.indifference import Indifference
from precode_lib.attacks.ledger import Ledger
from precode_lib.attacks.objectives import total_variation
from precode_lib.attacks.observed import check_observation
from precode_lib.attacks.optimizers import optimize
from precode_lib.attacks.recipe import Recipe, check_per_victim, check_recipe
from precode_lib.attacks.reports import (
    FAILED,
    OUTCOMES,
    RUNNING,
    AttackStep,
    Reconstruction,
)
from precode_lib.attacks.unknowns import (
    Trial,
    Unknown,
    like_model,
    searched_labels,
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
    `chunk_bytes`. What the client draws that nobody told, the recipe's `hidden`
    decides; it is the same for every evaluation within a step. Dropout inside a
    function, such as attention's, and stochastic depth are the exception to both: torch
    draws their masks from the global generator, anew in every evaluation.

    Args:
        observation: all that the attacker knows.
        recipe: what to minimise and how.
        generator: draws the starts and what is hidden.
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
        _check_pictures(recipe, observation)
        self.observation, self.recipe = observation, recipe
        self.iteration = 0
        self._chunk_bytes = chunk_bytes
        self._client = observation.client(recipe.imagined)
        self._labels = _labels(observation, recipe)
        self._unknowns = [_pictures(observation, recipe, start)]
        if self._labels is None:
            self._unknowns.append(searched_labels())
        first = self._begun(self._unknowns, generator)
        self._hidden = recipe.hidden(self._sites(first, generator))
        _check_copies(self._hidden.copies, observation)
        others = [*self._hidden.unknowns, *recipe.unknowns]
        first += self._begun(others, generator)
        self._unknowns += others
        self._boxes = [unknown.bounds() for unknown in self._unknowns]
        self._ledger = Ledger.opened(self._values(first))
        self._is_broken = False
        # Of pictures from elsewhere nobody knows how random they are.
        self._begins_at_random = start is None
        self._optimizer = optimize(recipe.optimizer, first)
        self._aim()
        self._indifference = Indifference(
            self._matched(observation.shared),
            partial(recipe.distance, **self._weighing),
            len(first[0]),
        )

    def __repr__(self) -> str:
        made, most = self.iteration, self.recipe.iterations
        return (
            f"Search({self.recipe.name}, {self.observation.num_victims} victims, "
            f"{made} of {most} steps made, {len(self._ledger.active)} searching)"
        )

    def _left(self) -> int:
        running = len(self._ledger.active) > 0
        return self.recipe.iterations - self.iteration if running else 0

    def _advance(self) -> AttackStep:
        """Make one step; a search that broke off in it says so until one succeeds."""
        try:
            step = self._step()
        except Exception:
            self._is_broken = True
            raise
        self._is_broken = False
        return step

    def _step(self) -> AttackStep:
        """Evaluate the current guesses, report them, and move on."""
        if self.iteration and self._stage() != self._stage(self.iteration - 1):
            self._begin_stage()
        self._hidden.next_step()
        variables = [v.detach().clone() for v in self._optimizer.variables]
        factor = self.recipe.schedule(self.iteration, self.recipe.iterations)
        objective = self._optimizer.step(self._evaluate, factor)
        self._optimizer.bound(self._boxes)
        self._ledger.record(objective.detach(), self._values(variables))
        self.iteration += 1
        staying = self._ledger.retire(self.recipe, self.iteration)
        if staying is not None and bool(staying.any()):
            self._optimizer.keep(staying)
            self._aim()
        return self._report()

    def _stage(self, iteration: int | None = None) -> int:
        return self.recipe.stage(self.iteration if iteration is None else iteration)

    def _begin_stage(self) -> None:
        """Another weight of the prior: what was learnt of the old objective is void."""
        self._optimizer = optimize(self.recipe.optimizer, self._optimizer.variables)
        self._ledger.forget_best()

    @property
    def result(self) -> Reconstruction:
        """What the search has found so far.

        Where an error broke it off, the victims that were still searched for have the
        outcome "failed", and NaN for images: nobody may take them for protected.
        """
        if self.iteration == 0:
            raise ValueError(
                "the search has found nothing: "
                + ("its first step failed." if self._is_broken else "make a step.")
            )
        ledger = self._ledger
        chosen = self._winners(ledger.best_objective)
        outcome = ledger.outcome[chosen]
        images, *others = (value[chosen].clone() for value in ledger.best)
        if self._is_broken:
            images[outcome == RUNNING] = torch.nan
            outcome = torch.where(outcome == RUNNING, FAILED, outcome)
        objective = ledger.best_objective[chosen].clone()
        names = [unknown.name for unknown in self._unknowns[1:]]
        found = dict(zip(names, others, strict=True))
        logits = None if self._labels is not None else found.pop("labels")
        return Reconstruction(
            attack=self.recipe.name,
            images=images,
            objective=objective,
            labels=self._labels.clone() if logits is None else logits.argmax(-1),
            last_images=ledger.last[chosen].clone(),
            last_objective=ledger.last_objective[chosen].clone(),
            iterations=ledger.made[chosen].clone(),
            outcome=tuple(OUTCOMES[code] for code in outcome.tolist()),
            normalisation=self.observation.normalisation,
            found=found,
            blind=self._indifference.reasons(chosen, objective),
            packing=self.observation.packing,
        )

    def _report(self) -> AttackStep:
        chosen = self._winners(self._ledger.last_objective)
        return AttackStep(
            iteration=self.iteration - 1,
            objective=self._ledger.last_objective[chosen],
            images=self._ledger.last[chosen],
            num_active=len(self._ledger.active),
        )

    def _winners(self, objective: Tensor) -> Tensor | slice:
        """For each victim, which of its restarts has the lowest objective."""
        num_victims = self.observation.num_victims
        if self.recipe.restarts == 1:
            return slice(None)
        table = objective.nan_to_num(nan=inf).view(-1, num_victims)
        victims = torch.arange(num_victims, device=objective.device)
        return table.argmin(0) * num_victims + victims

    def _begun(self, unknowns: Sequence[Unknown], generator) -> list[Tensor]:
        """Where the variables of these unknowns begin."""
        count = self.recipe.restarts * self.observation.num_victims
        return [u.first(self.observation, count, generator) for u in unknowns]

    def _values(self, variables: Sequence[Tensor]) -> list[Tensor]:
        """What the variables stand for: an optimizer sees each in units of its rate."""
        pairs = zip(self._unknowns, variables, strict=True)
        return [v if u.rate == 1 else v * u.rate for u, v in pairs]

    def _sites(self, first: Sequence[Tensor], generator: torch.Generator) -> Sites:
        labels = first[1].softmax(-1) if self._labels is None else self._labels
        return Sites(
            self._client,
            first[0][:1],
            labels[:1],
            num_searches=len(first[0]),
            num_victims=self.observation.num_victims,
            generator=generator,
        )

    def _evaluate(self, variables, part: slice) -> tuple[Tensor, list[Tensor]]:
        """Objectives of these active searches, and their slopes, chunk by chunk.

        An optimizer for each victim asks for a part of the active searches; the
        targets are cut into chunks of them; what is evaluated is where both meet.
        """
        start, stop, _ = part.indices(len(self._ledger.active))
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
            searches = self._ledger.active[low:high]
            objective = self._objective(self._values(pieces), searches, aim)
            objectives.append(objective.detach())
            # A loss need not depend on all that is searched for.
            slopes.append(
                torch.autograd.grad(
                    objective.sum(), pieces, allow_unused=True, materialize_grads=True
                )
            )
        slopes = [_joined(rows) for rows in zip(*slopes, strict=True)]
        pairs = zip(self._unknowns, slopes, strict=True)
        return _joined(objectives), [s.sign() if u.signed else s for u, s in pairs]

    def _objective(
        self, values: Sequence[Tensor], searches: Tensor, target: Gradients
    ) -> Tensor:
        """What these searches minimise: distance, and whatever weighs with it."""
        recipe, images = self.recipe, values[0]
        guess = self._guess(values, searches)
        total = self._distance(guess, searches, target)
        if recipe.prior_weight:
            prior = recipe.prior(images)
            self._check("prior", prior, images)
            total = total + recipe.stages[self._stage()] * recipe.prior_weight * prior
        if recipe.label_weight:
            source = self._hidden.of(searches, guess)
            logits = self._client.logits(guess.images, noise=source)
            label_term = recipe.label_term(logits, guess.labels)
            self._check("label_term", label_term, images)
            total = total + recipe.label_weight * label_term
        for unknown, value in zip(self._unknowns, values, strict=True):
            if unknown.prior_weight:
                prior = unknown.prior(value)
                self._check(f"the prior of {unknown.name}", prior, images)
                total = total + unknown.prior_weight * prior
        return total

    def _guess(self, values: Sequence[Tensor], searches: Tensor) -> Trial:
        labels = None
        if self._labels is not None:
            labels = self._labels[searches % self.observation.num_victims]
        guess = Trial(values[0], labels)
        for unknown, value in zip(self._unknowns, values, strict=True):
            unknown.enter(guess, value)
        copies = self._hidden.copies
        if copies > 1:  # of a batch that holds each picture so often, it is the mean
            guess.images = guess.images.repeat_interleave(copies, 1)
            guess.labels = guess.labels.repeat_interleave(copies, 1)
        return guess

    def _distance(self, guess: Trial, searches: Tensor, target: Gradients) -> Tensor:
        recipe = self.recipe
        source = self._hidden.of(searches, guess)
        gradients = self._client(guess.images, guess.labels, noise=source)
        if recipe.layers is not None:
            gradients = recipe.layers(gradients)
        if len(gradients) > len(target):  # a defense withheld the others
            gradients = Gradients({name: gradients[name] for name in target})
        distance = recipe.distance(gradients, target, **self._weighing)
        self._check("distance", distance, guess.images)
        if self.iteration == 0 and self._begins_at_random:
            self._indifference.note(searches, distance)
        return distance

    def _check(self, name: str, values: Tensor, images: Tensor) -> None:
        if self.iteration == 0:  # what is right once is right ever after
            check_per_victim(values, name, len(images))

    def _aim(self) -> None:
        """Cut the targets of the active searches into chunks that fit into memory."""
        observation, active = self.observation, self._ledger.active
        shared = self._matched(observation.shared)
        self._weighing = {}
        if self.recipe.layer_weights is not None:
            self._weighing = {"weights": self.recipe.layer_weights(shared)}
        if len(active) != shared.num_victims or self.recipe.restarts > 1:
            shared = shared.take(active % observation.num_victims)
        size = self._searches_within(self._chunk_bytes)
        starts = range(0, len(active), size)
        parts = [slice(s, min(s + size, len(active))) for s in starts]
        whole = len(parts) == 1
        self._targets = [(p, shared if whole else shared.take(p)) for p in parts]

    def _matched(self, shared: Gradients) -> Gradients:
        """What of the victims' gradients is matched."""
        if self.recipe.layers is None:
            return shared
        chosen = self.recipe.layers(shared)
        if not isinstance(chosen, Gradients):
            kind = type(chosen).__name__
            raise TypeError(f"layers must return Gradients, got {kind}.")
        return chosen

    def _searches_within(self, num_bytes: int) -> int:
        """How many searches one evaluation may take."""
        one = [value[:1] for value in self._ledger.best]
        guess = self._guess(one, self._ledger.active[:1])
        return self._client.victims_within(num_bytes, guess.images, guess.labels)

    def _bar(self) -> dict:
        return {"desc": self.recipe.name, "unit": "step"}

    def _note(self, step: AttackStep) -> str:
        middle = step.objective.median().item()
        return f"objective {middle:.3g}, {step.num_active} searching"

    def state_dict(self) -> dict:
        """Everything that `load_state_dict` needs to go on as if never interrupted.

        Tensors, lists, numbers and strings only: `torch.save` it, load it with
        `weights_only=True`. The observation and the recipe are not part of it.
        """
        going = len(self._ledger.active) > 0
        return {
            "recipe": self.recipe.name,
            "iteration": self.iteration,
            "unknowns": [unknown.name for unknown in self._unknowns],
            "ledger": self._ledger.state_dict(),
            "optimizer": self._optimizer.state_dict() if going else None,
            "hidden": self._hidden.state_dict(),
            "indifference": self._indifference.state_dict(),
        }

    def load_state_dict(self, state: dict) -> None:
        """Go on from a `state_dict` of a search of the same recipe and observation."""
        if not isinstance(state, dict) or "ledger" not in state:
            raise ValueError("this is no state of a search: state_dict() makes one.")
        shape, own = (
            tuple(state["ledger"]["last"].shape),
            tuple(self._ledger.last.shape),
        )
        if state["recipe"] != self.recipe.name or shape != own:
            raise ValueError(
                f"this state is of {state['recipe']!r} over images {shape}, the search "
                f"is {self.recipe.name!r} over {own}."
            )
        names = [unknown.name for unknown in self._unknowns]
        if state["unknowns"] != names:
            raise ValueError(
                f"this state is of a search for {', '.join(state['unknowns'])}; this "
                f"one is for {', '.join(names)}. Give both the same `labels`, `hidden` "
                "and `unknowns`."
            )
        self._ledger.load_state_dict(state["ledger"])
        self.iteration = state["iteration"]
        self._hidden.load_state_dict(state["hidden"])
        if "indifference" in state:  # not in those of older versions
            self._indifference.load_state_dict(state["indifference"])
        if len(self._ledger.active):
            self._optimizer.load_state_dict(state["optimizer"])
            self._aim()


def _joined(pieces: Sequence[Tensor]) -> Tensor:
    return pieces[0] if len(pieces) == 1 else torch.cat(list(pieces))


def _pictures(
    observation: Observation, recipe: Recipe, start: Tensor | None
) -> Unknown:
    """The pictures, as the first unknown of every search."""

    def enter(guess: Trial, images: Tensor) -> None:
        guess.images = images

    return Unknown(
        "pictures",
        partial(_first_images, recipe=recipe, start=start),
        enter,
        signed=recipe.signed,
        box=_box(observation) if recipe.boxed else None,
    )


def _check_pictures(recipe: Recipe, observation: Observation) -> None:
    """Refuse what looks at rows and columns where the examples have none."""
    if observation.discrete:
        raise ValueError(
            "the examples hold whole numbers, such as tokens, which no search can move "
            "by small steps. A closed form may read them off (an embedding's rows); or "
            "observe a model that starts behind its embedding, on embeddings."
        )
    shape = tuple(observation.image_shape)
    if len(shape) == 3:
        return
    if recipe.prior_weight and recipe.prior is total_variation:
        raise ValueError(
            f"total variation is of pictures (C, H, W), the examples are {shape}: "
            "search with prior_weight=0, or with another prior."
        )
    if getattr(recipe.start, "is_of_pictures", False):
        raise ValueError(
            f"this start is of pictures (C, H, W), the examples are {shape}: search "
            "with start=normal."
        )


def _check_copies(copies: int, observation: Observation) -> None:
    if copies > 1 and observation.local is not None:
        raise ValueError(
            "a mean over draws stands for one gradient; this observation is of several "
            "local steps: search with hidden=fresh, or searched()."
        )


def _box(observation: Observation) -> tuple[Tensor, Tensor]:
    if observation.normalisation is None:
        raise ValueError(
            "a boxed search needs to know the range of real pictures: give `observe` a "
            "normalisation, or search with boxed=False."
        )
    like = like_model(observation)
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
    count: int,
    generator: torch.Generator,
    *,
    recipe: Recipe,
    start: Tensor | None,
) -> Tensor:
    """The starts of all searches, restart by restart: (restarts * V, B, C, H, W)."""
    shape = (
        observation.num_victims, observation.num_examples, *observation.image_shape
    )  # fmt: skip
    like = like_model(observation)
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
