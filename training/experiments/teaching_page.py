"""The page of how a student is best taught, from whatever runs are finished."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from training.evaluate.bootstrap import interval
from training.experiments.claims import RULE, verdict
from training.experiments.page import machines, markdown, put
from training.experiments.teaching import ARMS, RATE, name_of

COMMAND = "python -m training teaching"
TITLES = {"tar_at_far_1e3": "TAR@FAR=1e-3", "equal_error_rate": "EER", "rank_1": "rank-1"}
DECIDES = "tar_at_far_1e3"

INTRODUCTION = """What each change of the teaching brings to the network that ships, on people of
`identities/validation`, who were in no training. Every arm goes on from the same weights, sees as
many crops and has the same rate, which falls to zero. The row's arm differs from the one named
beside it in what its title says, and in nothing else. In brackets 95 % over people (bootstrap; for
differences the same people are drawn on both sides)."""

READING = """These are short trials of one seed: they choose the long run's recipe, no more.
What needs many passes (mixtures, twice the crops) is judged early here. No test set was looked
at."""


def write_page(found: Sequence[Mapping[str, Any]], start: Mapping[str, Any], out: Path) -> None:
    """Writes out (.md) and its facts (.json) beside it.

    found: figures of finished runs. start: figures and rounds of the weights that all went on from.
    Raises ValueError without a finished run."""
    by_name = {run["recipe"]["name"]: run for run in found}
    runs = {arm: by_name[name_of(arm, 1)] for arm in ARMS if name_of(arm, 1) in by_name}
    if not runs:
        raise ValueError(f"{out}: no run of the teaching experiment is finished yet")
    facts = {
        "command": COMMAND,
        "start": _told(start),
        "arms": {arm: _told(run) | _difference(arm, runs) for arm, run in runs.items()},
    }
    recipe = next(iter(runs.values()))["recipe"]
    rows = [["the weights before", *_figures(facts["start"]), "", ""]]
    for arm, told in facts["arms"].items():
        beside = ARMS[arm].beside or ""
        rows.append([f"{arm}: {ARMS[arm].title}", *_figures(told), beside, _change(told)])
    head = ["arm", *(f"{title}, %" for title in TITLES.values()), "beside", "TAR by, points"]
    parts = [
        "# How a student is best taught",
        f"Made by `{COMMAND}`; {len(runs)} of {len(ARMS)} runs are finished.",
        INTRODUCTION,
        markdown(head, rows),
        READING,
        RULE,
        f"Steps: {recipe['steps']:,} of {recipe['batch']} crops, rate {RATE:g} falling to zero. "
        f"{machines(list(runs.values()))}.",
    ]
    put(out, "\n\n".join(parts) + "\n", facts)


def _told(run: Mapping[str, Any]) -> dict[str, Any]:
    told = {}
    for name in TITLES:
        low, high = interval(np.array(run["rounds"][name]))
        told[name] = {"value": run["figures"][name], "low": low, "high": high}
    return told


def _difference(arm: str, runs: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Change of the deciding figure by the arm; {} if the other one is not finished."""
    beside = ARMS[arm].beside
    if beside not in runs:
        return {}
    rounds = np.subtract(*(runs[name]["rounds"][DECIDES] for name in (arm, beside)))
    low, high = interval(rounds)
    said = verdict([(low, high)])  # one interval: over people alone
    return {"difference": {"value": float(rounds[0]), "low": low, "high": high, "says": said}}


def _figures(told: Mapping[str, Any]) -> list[str]:
    return [
        f"{100 * told[name]['value']:.2f} [{100 * told[name]['low']:.2f}, "
        f"{100 * told[name]['high']:.2f}]"
        for name in TITLES
    ]


def _change(told: Mapping[str, Any]) -> str:
    if "difference" not in told:
        return ""
    by = told["difference"]
    return f"{100 * by['value']:+.2f} [{100 * by['low']:+.2f}, {100 * by['high']:+.2f}]"
