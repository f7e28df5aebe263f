"""Rates over epochs: a rise, a fall, and what a validation that brings nothing new does to them.

All are plain functions of the step and of the validations so far, so that a run that goes on takes
the very same steps."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, TypeVar

Recipe = TypeVar("Recipe", bound=Any)


def sized(recipe: Recipe, count: int) -> Recipe:
    """The recipe for a set of `count` images: steps, decay_steps and validate_every that are 0
    become `epochs` epochs of whole batches, the share `decay` of the steps, and one epoch.

    Raises ValueError where the set does not fill a batch."""
    if count < recipe.batch:
        raise ValueError(f"{recipe.name}: {count} images do not fill a batch of {recipe.batch}")
    epoch = count // recipe.batch
    steps = recipe.steps or recipe.epochs * epoch
    return replace(
        recipe,
        steps=steps,
        decay_steps=recipe.decay_steps or round(recipe.decay * steps),
        validate_every=recipe.validate_every or epoch,
    )


def rate(recipe: Any, step: int, count: int) -> float:
    """The learning rate at a step in [0, steps) of a sized recipe for a set of `count`.

    It rises linearly over warmup_epochs and falls along half a cosine over the last decay_steps."""
    rise = recipe.warmup_epochs * (count // recipe.batch)
    up = min(1.0, (step + 1) / rise) if rise else 1.0
    left = min(1.0, (recipe.steps - step) / recipe.decay_steps) if recipe.decay_steps else 1.0
    return recipe.learning_rate * up * (1 - math.cos(math.pi * left)) / 2


def plateaus(figures: Sequence[float], *, patience: int, least_gain: float) -> int:
    """How often `patience` validations in a row brought no gain over the best, counted anew after
    each time: Keras' ReduceLROnPlateau lowers its rate so often.

    figures: one a validation, oldest first, the higher the better. A gain is one of more than
    least_gain. patience 0: never."""
    best, waited, found = -math.inf, 0, 0
    for figure in figures:
        waited += 1
        if figure > best + least_gain:
            best, waited = figure, 0
        elif waited == patience:
            found, waited = found + 1, 0
    return found


def is_over(figures: Sequence[float], *, patience: int, least_gain: float) -> bool:
    """Whether Keras' EarlyStopping would have stopped by now; arguments as in plateaus."""
    return plateaus(figures, patience=patience, least_gain=least_gain) > 0
