"""The ablation's page, from whatever runs are finished: what each arm reaches, what each change
brings, and what may be said of it."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from training.evaluate.bootstrap import interval
from training.evaluate.plots import draw_arms
from training.experiments import claims, page
from training.experiments.ablation import ATTENTIONS, LOSSES, Arm
from training.experiments.claims import RULE, has_learnt
from training.experiments.page import machines, markdown, put
from training.experiments.people import MEASURES
from training.experiments.seeds import Estimate, over_seeds, paired, percent

COMMAND = "python -m training ablation"
TITLES = {
    "tar_at_far_1e3": "TAR@FAR=1e-3",
    "equal_error_rate": "EER",
    "rank_1": "rank-1",
    "lfw_accuracy": "LFW accuracy",
    "lfw_tar_at_far_1e3": "LFW TAR@FAR=1e-3",
}
DECIDES = "tar_at_far_1e3"  # what the sentences are about
NAMES = {
    "none": "no attention",
    "eca": "ECA",
    "esca": "ESCA",
    "softmax": "softmax",
    "arcface": "ArcFace",
    "curricular": "CurricularFace",
}

INTRODUCTION = """MobileFaceNet (15 bottlenecks) on crops of 56 x 56 pixels, from labels alone, on
`identities/train`; attention, loss and seed are all that differs
(`training/experiments/ablation.py` has the recipe). TAR, EER and rank-1 (one face a person
enrolled) are over the people of `identities/validation` and `identities/calibration` together, who
were in no training; LFW is the test set. Each crop is embedded once, without its mirror image.
Nothing was chosen by any of these figures: the settings were fixed beforehand, and the network is
that of the last step. A choice between arms would have to go by validation's people alone, whose
TAR is in [ablation.json](ablation.json)."""

READING = """The loss is the softmax of 64 times the cosines, as they are (softmax), or changed by
ArcFace or CurricularFace. An arm whose EER is 40 % or so has hardly begun to learn in so few steps,
which says nothing of where it would end. In brackets 95 %: Student's t over the seeds. A run is
minutes on the machine below while it may have done other work; ECA alone has no compiled step here,
so minutes do not compare it with ESCA."""

DIFFERENCES = """The same seed on both sides: the same batches in the same order, and with one
attention the same first weights. In brackets 95 %, first over seeds (Student's t of the paired
differences), then over people (a bootstrap of the mean over the seeds, the same people drawn on
both sides)."""

PAPER = """In ECACFace's Table 3 (IR_101, trained on CASIA-WebFace, CurricularFace) LFW is 99.50 %
without attention, 99.41 with ECA and 99.50 with ESCA, CFP-FP 94.70, 95.31 and 95.40. Those are
another network, another size of crops and ten times the people: they cannot stand in one table with
these."""


def write_page(
    found: Sequence[Mapping[str, Any]], planned: Sequence[Arm], seeds: int, out: Path
) -> None:
    """Writes out (.md), and its picture (.png) and facts (.json) beside it.

    found: figures of finished runs, of the planned arms or others. seeds: planned for each arm.
    Raises ValueError without a finished run."""
    if not found:
        raise ValueError(f"{out}: no run of the ablation is finished yet")
    by_arm = {arm: _of_arm(found, arm) for arm in _in_order(found, planned)}
    missing = sum(seed not in by_arm[arm] for arm in planned for seed in range(1, seeds + 1))
    facts = {"command": COMMAND, "finished": len(found), "planned": len(found) + missing}
    facts |= summary(found, by_arm)
    facts["says"] = says(facts)
    picture = out.with_suffix(".png")
    draw_arms(
        {TITLES[name]: _dots(by_arm, name) for name in (DECIDES, "lfw_accuracy")},
        "%; dots: seeds; bars: their mean with 95 %",
        picture,
    )
    parts = [
        "# Ablation: attention and loss",
        f"Made by `{COMMAND}`; {len(found)} of {facts['planned']} runs are finished.",
        INTRODUCTION,
        f"![What each arm reaches]({picture.name})",
        "## What may be said",
        "\n".join(f"- {sentence}" for sentence in facts["says"]),
        "## Arms",
        _arms_table(by_arm),
        READING,
        "## Differences",
        differences(facts),
        "## Beside the paper",
        PAPER,
        "## Machine",
        f"{machines(found)}. {sum(run['seconds'] for run in found) / 3600:.1f} hours of training "
        f"in all. Steps a run: {found[0]['recipe']['steps']:,} of {found[0]['recipe']['batch']}.",
    ]
    put(out, "\n\n".join(part for part in parts if part) + "\n", facts)


def summary(
    found: Sequence[Mapping[str, Any]], by_arm: Mapping[Arm, Mapping[int, Any]]
) -> dict[str, Any]:
    """The page as JSON, but for what it `says`. Shares in [0, 1], seconds."""
    changes = [change for a, b in combinations(by_arm, 2) if (change := _change(by_arm, a, b))]
    return {
        "recipe": {k: v for k, v in found[0]["recipe"].items() if k not in ("name", "seed")},
        "machines": machines(found),
        "arms": [
            {"attention": arm[0], "loss": arm[1], "seeds": sorted(runs), **_estimates(runs)}
            for arm, runs in by_arm.items()
            if runs
        ],
        "differences": changes,
    }


def says(facts: Mapping[str, Any]) -> list[str]:
    """A sentence for each difference among the facts, by the deciding measure."""
    unlearnt = {}
    for arm in facts["arms"]:
        eer = arm["equal_error_rate"]
        if not has_learnt(eer["mean"], of_a_guess=0.5):
            named = f"{NAMES[arm['attention']]} with {NAMES[arm['loss']]}"
            unlearnt[arm["attention"], arm["loss"]] = f"{named} (EER {100 * eer['mean']:.2f} %)"
    return [
        _sentence(change, [unlearnt[arm] for arm in _arms_of(change) if arm in unlearnt])
        for change in facts["differences"]
    ]


def verdict(change: Mapping[str, Any], unlearnt: Sequence[str] = ()) -> str:
    """What may be claimed by the deciding measure's two intervals; unlearnt: as claims.verdict."""
    told = change[DECIDES]
    intervals = [(told["low"], told["high"]), (told["people_low"], told["people_high"])]
    return claims.verdict(intervals, unlearnt=unlearnt)


def say_again(out: Path) -> None:
    """The sentences of a page whose runs are gone, once more; raises as page.say_again does."""
    page.say_again(out, says, differences)


def differences(facts: Mapping[str, Any]) -> str:
    """The section about the differences among the facts."""
    return "\n\n".join([_differences_table(facts["differences"]), DIFFERENCES, RULE])


def _arms_of(change: Mapping[str, Any]) -> list[Arm]:
    """Both sides of a change."""
    sides = (change["from"], change["to"])
    if change["with"] in ATTENTIONS:
        return [(change["with"], loss) for loss in sides]
    return [(attention, change["with"]) for attention in sides]


def _in_order(found: Sequence[Mapping[str, Any]], planned: Sequence[Arm]) -> list[Arm]:
    there = {(run["recipe"]["attention"], run["recipe"]["loss"]) for run in found} | set(planned)
    return sorted(there, key=lambda arm: (ATTENTIONS.index(arm[0]), LOSSES.index(arm[1])))


def _of_arm(found: Sequence[Mapping[str, Any]], arm: Arm) -> dict[int, Mapping[str, Any]]:
    """{seed: run}"""
    runs = [r for r in found if (r["recipe"]["attention"], r["recipe"]["loss"]) == arm]
    return {run["recipe"]["seed"]: run for run in runs}


def _values(runs: Mapping[int, Mapping[str, Any]], name: str) -> dict[int, float]:
    return {seed: run["figures"][name] for seed, run in runs.items()}


def _estimates(runs: Mapping[int, Mapping[str, Any]]) -> dict[str, Any]:
    names = next(iter(runs.values()))["figures"]
    told = {name: asdict(over_seeds(list(_values(runs, name).values()))) for name in names}
    return told | {"seconds": float(np.mean([run["seconds"] for run in runs.values()]))}


def _change(
    by_arm: Mapping[Arm, Mapping[int, Mapping[str, Any]]], before: Arm, after: Arm
) -> dict[str, Any]:
    """What one changed thing brings; {} where two differ or no seed is finished on both sides."""
    seeds = sorted(by_arm[before].keys() & by_arm[after].keys())
    if not seeds or (before[0] != after[0] and before[1] != after[1]):
        return {}
    what = 0 if before[0] != after[0] else 1
    told: dict[str, Any] = {
        "from": before[what],
        "to": after[what],
        "with": before[1 - what],
        "seeds": seeds,
    }
    for name in TITLES:
        found = paired(_values(by_arm[before], name), _values(by_arm[after], name))
        told[name] = asdict(found)
        if name in MEASURES:
            rounds = [
                np.subtract(*(by_arm[arm][seed]["rounds"][name] for arm in (after, before)))
                for seed in seeds
            ]
            low, high = interval(np.mean(rounds, axis=0))
            told[name] |= {"people_low": low, "people_high": high}
    return told


def _sentence(change: Mapping[str, Any], unlearnt: Sequence[str]) -> str:
    told, seeds = change[DECIDES], len(change["seeds"])
    over = "one seed" if seeds == 1 else f"{seeds} seeds"
    after, before, beside = (NAMES[change[key]] for key in ("to", "from", "with"))
    return (
        f"{after} in place of {before} (with {beside}): "
        f"{TITLES[DECIDES]} over unseen people by {_cell(told)} points, {over}: "
        f"{verdict(change, unlearnt)}."
    )


def _cell(told: Mapping[str, float]) -> str:
    text = percent(
        Estimate(told["mean"], told["low"], told["high"], int(told["count"])), signed=True
    )
    if "people_low" not in told:
        return text
    return f"{text} [{100 * told['people_low']:+.2f}, {100 * told['people_high']:+.2f}]"


def _arms_table(by_arm: Mapping[Arm, Mapping[int, Mapping[str, Any]]]) -> str:
    rows = []
    for arm, runs in by_arm.items():
        cells = [
            percent(over_seeds(list(_values(runs, name).values()))) if runs else ""
            for name in TITLES
        ]
        minutes = f"{np.mean([r['seconds'] for r in runs.values()]) / 60:.1f}" if runs else ""
        rows.append([NAMES[arm[0]], NAMES[arm[1]], str(len(runs)), *cells, minutes])
    return markdown(["attention", "loss", "seeds", *_heads(), "minutes a run"], rows)


def _differences_table(changes: Sequence[Mapping[str, Any]]) -> str:
    rows = [
        [
            f"{NAMES[change['from']]} -> {NAMES[change['to']]}",
            NAMES[change["with"]],
            str(len(change["seeds"])),
            *(_cell(change[name]) for name in TITLES),
        ]
        for change in changes
    ]
    return markdown(["change", "with", "seeds", *_heads("points")], rows)


def _heads(unit: str = "%") -> list[str]:
    return [f"{title}, {unit}" for title in TITLES.values()]


def _dots(
    by_arm: Mapping[Arm, Mapping[int, Mapping[str, Any]]], name: str
) -> dict[str, tuple[list[float], tuple[float, float, float]]]:
    """{arm: (each seed's, (mean, low, high))} in per cent."""
    dots = {}
    for arm, runs in by_arm.items():
        if runs:
            values = [100 * value for value in _values(runs, name).values()]
            found = over_seeds(values)
            dots[f"{NAMES[arm[0]]}, {NAMES[arm[1]]}"] = values, (found.mean, found.low, found.high)
    return dots
