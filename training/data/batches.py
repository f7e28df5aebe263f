"""Batches of crops: which crops a step sees, and how each is changed.

All of it follows from (seed, step, place in the batch), so that a resumed run sees exactly what an
unbroken one would, and ranks together what one process would alone.
"""

import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training import ranks
from training.data.augment import LEVELS

AHEAD = 2  # batches that are made while one is used


@dataclass(frozen=True)
class Batch:
    """pixels_NHWC: uint8 (n, H, W, 3) RGB; indices_N: int64, the crops' places in their set."""

    pixels_NHWC: NDArray[np.uint8]
    indices_N: NDArray[np.int64]


def coming(pixels_NHWC: Any, recipe: Any) -> Callable[[int, int], Iterator[tuple[int, Batch]]]:
    """Run.batches: this rank's part of them, by the recipe's batch, seed and augmentation.

    Raises ValueError, before any batch is asked for, for an augmentation that there is not."""
    _require_level(recipe.augmentation)

    def from_to(start: int, stop: int) -> Iterator[tuple[int, Batch]]:
        return batches(
            pixels_NHWC,
            size=recipe.batch,
            start=start,
            stop=stop,
            seed=recipe.seed,
            level=recipe.augmentation,
            part=(ranks.rank(), ranks.ranks()),
        )

    return from_to


def batches(
    pixels_NHWC: Any,
    *,
    size: int,
    start: int,
    stop: int,
    seed: int,
    level: str = "mild",
    part: tuple[int, int] = (0, 1),
) -> Iterator[tuple[int, Batch]]:
    """(step, batch) for steps start <= step < stop; the next ones are made while one is used.

    pixels_NHWC: an array in memory, or anything whose [i] decodes crop i, uint8 RGB, in any thread:
    then every core decodes. level: a name of augment.LEVELS. part: (r, n) takes every n-th crop of
    each batch from the r-th on, a rank's part. Raises ValueError for an unknown level and a size
    that n does not divide."""
    _require_level(level)
    rank, ranks = part
    if size % ranks:
        raise ValueError(f"a batch of {size} cannot be shared out among {ranks} ranks")
    change = LEVELS[level]
    threads = 1 if isinstance(pixels_NHWC, np.ndarray) else len(os.sched_getaffinity(0))

    def make(step: int, places: NDArray[np.int64], indices: NDArray[np.int64]) -> Any:
        rngs = (np.random.default_rng((seed, step, place)) for place in places)
        return [change(pixels_NHWC[i], rng) for i, rng in zip(indices, rngs, strict=True)]

    with ThreadPoolExecutor(threads) as pool:

        def begin(step: int) -> tuple[NDArray[np.int64], list[Future[Any]]]:
            places = np.arange(rank, size, ranks)
            indices = order(len(pixels_NHWC), size, step, seed)[places]
            shares = zip(
                np.array_split(places, threads), np.array_split(indices, threads), strict=True
            )
            return indices, [pool.submit(make, step, *share) for share in shares]

        coming = deque(begin(step) for step in range(start, min(start + AHEAD, stop)))
        for step in range(start, stop):
            indices, shares = coming.popleft()
            if step + AHEAD < stop:
                coming.append(begin(step + AHEAD))
            crops = [crop for share in shares for crop in share.result()]
            yield step, Batch(np.stack(crops), indices)


def _require_level(level: str) -> None:
    if level not in LEVELS:
        raise ValueError(f"augmentation {level!r} is not one of {', '.join(LEVELS)}")


def order(count: int, size: int, step: int, seed: int) -> NDArray[np.int64]:
    """The places (size,) in [0, count) of the step's batch: its part of an endless row of
    permutations; a batch may reach over two of them."""
    places = np.arange(step * size, (step + 1) * size)
    epochs = places // count
    orders = {epoch: _epoch(count, seed, epoch) for epoch in {int(e) for e in epochs}}
    return np.array([orders[e][p] for e, p in zip(epochs, places % count, strict=True)])


@lru_cache(maxsize=2)
def _epoch(count: int, seed: int, epoch: int) -> NDArray[np.int64]:
    return np.random.default_rng((seed, 1 << 40, epoch)).permutation(count)
