"""The page of MZTS's ablation, from whatever runs are finished."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

from training.evaluate.plots import draw_arms
from training.experiments import page
from training.experiments.attributes import ARMS, SIZE
from training.experiments.changes import Runs, cell, changed, over, reached, verdict
from training.experiments.claims import RULE, has_learnt
from training.experiments.page import machines, markdown, put

COMMAND = "python -m training attributes-ablation"
FIGURES = {
    "validation_mean_accuracy": "accuracy, validation",
    "validation_mean_balanced_accuracy": "balanced accuracy, validation",
    "test_mean_accuracy": "accuracy, test",
    "test_mean_balanced_accuracy": "balanced accuracy, test",
}
DECIDES = ("test_mean_accuracy", "test_mean_balanced_accuracy")  # what the sentences are about
NAMES = {
    "mzts-plain": "no zones",
    "mzts-zones": "three zones",
    "mzts": "three zones that distil themselves",
}

INTRODUCTION = f"""MZTS (FG 2023) is known to us by its abstract: a vision transformer whose blocks
stand in zones that interact, and whose last zone teaches the shallower ones. The forms of both are
ours, and so are all figures: the paper's are not known to us, and there is nothing to compare with.

Here: {", ".join(NAMES.values())}. Every arm is the hybrid with ImageNet's MobileNetV1 for a stem,
twelve blocks of width 192, on CelebA's crops at {SIZE[0]} x {SIZE[1]} pixels, learnt from its
training partition; zones, distillation and seed are all that differs
(`training/experiments/attributes.py` has the recipe). Figures are means over the forty attributes,
on the official validation and test partitions. Nothing was chosen by them: the settings were fixed
beforehand, and the network is that of the last step. They are lower than those of the network that
ships, which learns longer and from larger crops."""

READING = """In per cent; in brackets 95 %, over faces (a bootstrap), then, where there are several
seeds, over seeds (Student's t). Balanced accuracy is the mean of the share of the present and of
the absent that are found: always answering the more frequent one gives 50."""

DIFFERENCES = """The same seed on both sides: the same batches in the same order. In brackets 95 %,
over faces (the same draws on both sides), then over seeds."""


def write_page(found: Sequence[Mapping[str, Any]], seeds: int, out: Path) -> None:
    """Writes out (.md), and its picture (.png) and facts (.json) beside it.

    found: figures of finished runs. seeds: planned for each arm. Raises ValueError without a
    finished run."""
    if not found:
        raise ValueError(f"{out}: no run of the attributes ablation is finished yet")
    by_arm = _by_arm(found)
    missing = sum(seed not in by_arm.get(arm, {}) for arm in ARMS for seed in range(1, seeds + 1))
    facts = {"command": COMMAND, "finished": len(found), "planned": len(found) + missing}
    facts |= summary(found, by_arm)
    facts["says"] = says(facts)
    picture = out.with_suffix(".png")
    draw_arms(
        {FIGURES[name]: _dots(by_arm, name) for name in DECIDES},
        "%; dots: seeds; bars: 95 % over faces",
        picture,
    )
    recipe, majority = found[0]["recipe"], found[0]["majority_mean_accuracy"]
    parts = [
        "# Ablation: zones and self-distillation for attributes",
        f"Made by `{COMMAND}`; {len(found)} of {facts['planned']} runs are finished.",
        INTRODUCTION,
        f"![What each arm reaches]({picture.name})",
        "## What may be said",
        "\n".join(f"- {sentence}" for sentence in facts["says"]),
        "## Arms",
        _arms_table(by_arm),
        READING,
        f"Always answering what most faces of the training partition have gives an accuracy of "
        f"{100 * majority:.2f} % on the test.",
        "## Differences",
        differences(facts),
        "## Machine",
        f"{machines(found)}. {sum(run['seconds'] for run in found) / 60:.0f} minutes of training "
        f"in all. Steps a run: {recipe['steps']:,} of {recipe['batch']}.",
    ]
    put(out, "\n\n".join(part for part in parts if part) + "\n", facts)


def summary(found: Sequence[Mapping[str, Any]], by_arm: Mapping[str, Runs]) -> dict[str, Any]:
    """The page as JSON, but for what it `says`. Shares in [0, 1], seconds."""
    apart = ("name", "seed", "zones", "supervise", "beta", "lam")
    changes = [
        {"from": a, "to": b, **{name: changed(by_arm[a], by_arm[b], name) for name in FIGURES}}
        for a, b in combinations(by_arm, 2)
        if by_arm[a].keys() & by_arm[b].keys()
    ]
    return {
        "recipe": {k: v for k, v in found[0]["recipe"].items() if k not in apart},
        "machines": machines(found),
        "majority_mean_accuracy": found[0]["majority_mean_accuracy"],
        "arms": [
            {
                "arm": arm,
                "seeds": sorted(runs),
                **{name: reached(runs, name) for name in FIGURES},
            }
            for arm, runs in by_arm.items()
        ],
        "differences": changes,
    }


def says(facts: Mapping[str, Any]) -> list[str]:
    """A sentence for each difference among the facts and each figure that decides."""
    unlearnt = {}
    for arm in facts["arms"]:
        balanced = arm["test_mean_balanced_accuracy"]["mean"]
        if not has_learnt(1 - balanced, of_a_guess=0.5):
            unlearnt[arm["arm"]] = f"{NAMES[arm['arm']]} (balanced accuracy {100 * balanced:.2f} %)"
    return [
        _sentence(
            change,
            name,
            [unlearnt[arm] for arm in (change["from"], change["to"]) if arm in unlearnt],
        )
        for change in facts["differences"]
        for name in DECIDES
    ]


def say_again(out: Path) -> None:
    """The sentences of a page whose runs are gone, once more; raises as page.say_again does."""
    page.say_again(out, says, differences)


def differences(facts: Mapping[str, Any]) -> str:
    """The section about the differences among the facts."""
    return "\n\n".join([_differences_table(facts["differences"]), DIFFERENCES, RULE])


def _by_arm(found: Sequence[Mapping[str, Any]]) -> dict[str, Runs]:
    """{arm: {seed: run}} of the arms that have a run."""
    runs = {arm: {run["recipe"]["seed"]: run for run in found if run["arm"] == arm} for arm in ARMS}
    return {arm: of for arm, of in runs.items() if of}


def _sentence(change: Mapping[str, Any], name: str, unlearnt: Sequence[str]) -> str:
    told = change[name]
    what = f"{NAMES[change['to']].capitalize()} in place of {NAMES[change['from']]}"
    return (
        f"{what}: mean {FIGURES[name].removesuffix(', test')} on CelebA's test by "
        f"{cell(told, signed=True)} points, {over(told)}: {verdict(told, unlearnt)}."
    )


def _arms_table(by_arm: Mapping[str, Runs]) -> str:
    rows = []
    for arm, runs in by_arm.items():
        cells = [cell(reached(runs, name)) for name in FIGURES]
        minutes = sum(run["seconds"] for run in runs.values()) / len(runs) / 60
        rows.append([NAMES[arm], str(len(runs)), *cells, f"{minutes:.1f}"])
    return markdown(["arm", "seeds", *FIGURES.values(), "minutes a run"], rows)


def _differences_table(changes: Sequence[Mapping[str, Any]]) -> str:
    rows = [
        [
            f"{NAMES[change['from']]} -> {NAMES[change['to']]}",
            str(change[DECIDES[0]]["count"]),
            *(cell(change[name], signed=True) for name in FIGURES),
        ]
        for change in changes
    ]
    return markdown(["change", "seeds", *FIGURES.values()], rows) if rows else ""


def _dots(
    by_arm: Mapping[str, Runs], name: str
) -> dict[str, tuple[list[float], tuple[float, float, float]]]:
    """{arm: (each seed's per cent, (mean, low, high) over faces)}, as draw_arms takes them."""
    found = {}
    for arm, runs in by_arm.items():
        told = reached(runs, name)
        bar = tuple(100 * told[key] for key in ("mean", "faces_low", "faces_high"))
        found[NAMES[arm]] = ([100 * run["figures"][name] for run in runs.values()], bar)
    return found
