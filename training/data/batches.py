"""Batches of crops: which crops a step sees, and how each is changed.

All of it follows from (seed, step, place in the batch), so that a resumed run sees exactly what an
unbroken one would, and ranks together what one process would alone.
"""

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from training import ranks
from training.data.augment import LEVELS

AHEAD = 2  # batches that are made while one is used
Answer = Callable[[NDArray[np.uint8]], NDArray[np.float32]]


@dataclass(frozen=True)
class Batch:
    """pixels_NHWC: uint8 (n, H, W, 3) RGB. indices_N: int64, the crops' places in their set.
    mixed_N: bool, true for a mixture of that crop and another one; None without mixtures.
    answers_ND: float32, the teachers' answers to pixels_NHWC, if they are asked."""

    pixels_NHWC: NDArray[np.uint8]
    indices_N: NDArray[np.int64]
    mixed_N: NDArray[np.bool_] | None = None
    answers_ND: NDArray[np.float32] | None = None


@dataclass(frozen=True)
class Share:
    """A part of the crops that has `size` places of every batch. places_N: int64, its crops."""

    places_N: NDArray[np.int64]
    size: int


def coming(
    pixels_NHWC: Any,
    recipe: Any,
    *,
    shares: Sequence[Share] = (),
    mixtures: float = 0.0,
    answer: Answer | None = None,
) -> Callable[[int, int], Iterator[tuple[int, Batch]]]:
    """Run.batches: this rank's part of them, by the recipe's batch, seed and augmentation.

    shares, mixtures, answer: see batches. Raises ValueError, before any batch is made, for an
    unknown augmentation, for shares that do not add up to a batch and for mixtures outside
    [0, 1]."""
    _require_level(recipe.augmentation)
    if shares and (taken := sum(share.size for share in shares)) != recipe.batch:
        raise ValueError(f"the sets' shares add up to {taken} crops; a batch has {recipe.batch}")
    if not 0 <= mixtures <= 1:
        raise ValueError(f"mixtures is {mixtures}; it must be in [0, 1]")

    def from_to(start: int, stop: int) -> Iterator[tuple[int, Batch]]:
        return batches(
            pixels_NHWC,
            size=recipe.batch,
            start=start,
            stop=stop,
            seed=recipe.seed,
            level=recipe.augmentation,
            part=(ranks.rank(), ranks.ranks()),
            shares=shares,
            mixtures=mixtures,
            answer=answer,
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
    shares: Sequence[Share] = (),
    mixtures: float = 0.0,
    answer: Answer | None = None,
) -> Iterator[tuple[int, Batch]]:
    """(step, batch) for steps start <= step < stop; the next ones are made while one is used.

    pixels_NHWC: an array in memory, or anything whose [i] decodes crop i, uint8 RGB, in any thread:
    then every core decodes. level: a name of augment.LEVELS. part: (r, n) takes every n-th crop of
    each batch from the r-th on, a rank's part. shares: the parts of the crops that fill a batch in
    turn; without, all crops are one. mixtures: the probability that a crop is blended with another
    one, each augmented by itself, at a weight drawn from [0, 1] (mixup, arXiv:1710.09412). answer:
    a teacher, asked for each batch in a thread of its own. Raises ValueError for an unknown level
    and a size that n does not divide."""
    _require_level(level)
    rank, ranks = part
    if size % ranks:
        raise ValueError(f"a batch of {size} cannot be shared out among {ranks} ranks")
    change, whole = LEVELS[level], len(pixels_NHWC)
    shares = shares or (Share(np.arange(whole), size),)
    threads = 1 if isinstance(pixels_NHWC, np.ndarray) else len(os.sched_getaffinity(0))

    def crop(step: int, place: int, i: int) -> tuple[NDArray[np.uint8], bool]:
        rng = np.random.default_rng((seed, step, place))
        seen = change(pixels_NHWC[i], rng)
        if not mixtures or rng.random() >= mixtures:
            return seen, False
        other, weight = change(pixels_NHWC[rng.integers(whole)], rng), rng.random()
        blended = cv2.addWeighted(
            np.ascontiguousarray(seen), weight, np.ascontiguousarray(other), 1 - weight, 0
        )
        return blended, True

    def make(step: int, places: NDArray[np.int64], indices: NDArray[np.int64]) -> Any:
        return [crop(step, int(p), int(i)) for p, i in zip(places, indices, strict=True)]

    def gather(indices: NDArray[np.int64], parts: list[Future[Any]]) -> Batch:
        crops, mixed = zip(*(made for part in parts for made in part.result()), strict=True)
        pixels = np.stack(crops)
        return Batch(pixels, indices, np.array(mixed), answer(pixels) if answer else None)

    with ThreadPoolExecutor(threads) as pool, ThreadPoolExecutor(1) as asking:

        def begin(step: int) -> Future[Batch]:
            places = np.arange(rank, size, ranks)
            drawn = [
                share.places_N[order(len(share.places_N), share.size, step, seed, stream)]
                for stream, share in enumerate(shares)
            ]
            indices = np.concatenate(drawn)[places]
            parts = zip(
                np.array_split(places, threads), np.array_split(indices, threads), strict=True
            )
            return asking.submit(gather, indices, [pool.submit(make, step, *p) for p in parts])

        coming = deque(begin(step) for step in range(start, min(start + AHEAD, stop)))
        for step in range(start, stop):
            batch = coming.popleft()
            if step + AHEAD < stop:
                coming.append(begin(step + AHEAD))
            yield step, batch.result()


def _require_level(level: str) -> None:
    if level not in LEVELS:
        raise ValueError(f"augmentation {level!r} is not one of {', '.join(LEVELS)}")


def order(count: int, size: int, step: int, seed: int, stream: int = 0) -> NDArray[np.int64]:
    """The places (size,) in [0, count) of the step's batch: its part of an endless row of
    permutations; a batch may reach over two of them. stream: another row under the same seed."""
    places = np.arange(step * size, (step + 1) * size)
    epochs = places // count
    orders = {epoch: _epoch(count, seed, epoch, stream) for epoch in {int(e) for e in epochs}}
    return np.array([orders[e][p] for e, p in zip(epochs, places % count, strict=True)])


@lru_cache(maxsize=16)
def _epoch(count: int, seed: int, epoch: int, stream: int) -> NDArray[np.int64]:
    return np.random.default_rng((seed, (1 << 40) + stream, epoch)).permutation(count)
