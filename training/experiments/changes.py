"""What an arm reaches and what a change between two arms brings, with two intervals: over faces (a
bootstrap) and over seeds (Student's t).

A run is what runs.run_once keeps of it: `figures`, and of each its `rounds` over faces; runs of an
arm stand by seed."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.evaluate.bootstrap import interval
from training.experiments import claims
from training.experiments.seeds import Estimate, over_seeds, paired

Runs = Mapping[int, Mapping[str, Any]]
Told = Mapping[str, Any]  # an Estimate's fields, and faces_low and faces_high


def reached(runs: Runs, name: str) -> dict[str, Any]:
    """A figure's mean over the seeds, with both intervals. Raises ValueError without a run."""
    rounds = [run["rounds"][name] for run in runs.values()]
    return _told(over_seeds(list(_values(runs, name).values())), np.mean(rounds, axis=0))


def changed(before: Runs, after: Runs, name: str) -> dict[str, Any]:
    """after - before, on the same seeds and the same draws of faces.

    Raises ValueError where they have no seed in common."""
    found = paired(_values(before, name), _values(after, name))
    rounds = [
        np.subtract(after[seed]["rounds"][name], before[seed]["rounds"][name])
        for seed in sorted(before.keys() & after.keys())
    ]
    return _told(found, np.mean(rounds, axis=0))


def verdict(told: Told, unlearnt: Sequence[str] = ()) -> str:
    """What may be claimed, by claims.verdict. unlearnt: the arms that have not learnt."""
    intervals = [(told["faces_low"], told["faces_high"]), (told["low"], told["high"])]
    return claims.verdict(intervals, unlearnt=unlearnt)


def cell(told: Told, *, signed: bool = False) -> str:
    """`82.10 [81.00, 83.20] [80.00, 84.20]`, per cent: over faces, then over seeds if several."""
    number = lambda value: f"{100 * value:{'+.2f' if signed else '.2f'}}"  # noqa: E731
    both = ("faces_low", "faces_high"), ("low", "high")
    known = both[: 1 if told["count"] == 1 else 2]
    intervals = [f"[{number(told[low])}, {number(told[high])}]" for low, high in known]
    return " ".join([number(told["mean"]), *intervals])


def over(told: Told) -> str:
    return "one seed" if told["count"] == 1 else f"{told['count']} seeds"


def _told(found: Estimate, rounds_R: NDArray[np.float64]) -> dict[str, Any]:
    low, high = interval(rounds_R)
    return {**asdict(found), "faces_low": low, "faces_high": high}


def _values(runs: Runs, name: str) -> dict[int, float]:
    return {seed: run["figures"][name] for seed, run in sorted(runs.items())}
