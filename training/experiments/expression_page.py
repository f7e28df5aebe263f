"""The page of PAtt-Lite's ablation, from whatever runs are finished."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

from training.data.expressions import CLASSES
from training.evaluate.plots import draw_arms
from training.experiments import page
from training.experiments.changes import Runs, cell, changed, over, reached, verdict
from training.experiments.claims import RULE, has_learnt
from training.experiments.expression import ATTENTIONS, PATCHES, SIDE, TOGETHER, Arm
from training.experiments.page import machines, markdown, put

COMMAND = "python -m training expression-ablation"
FIGURES = {"accuracy": "accuracy", "macro_f1": "macro F1"}
ASKED = {  # how faces are asked, and the figure of each
    "alone": "accuracy",
    f"batches of {TOGETHER}, shuffled": "accuracy_shuffled",
    f"batches of {TOGETHER}, by class": "accuracy_sorted",
}
NAMES = {
    "none": "no attention",
    "tokens": "attention within a face",
    "batch": "the published attention",
}
CELLS = {"none": "none", "tokens": "within a face", "batch": "over the batch (published)"}
# Table 4, FERPlus, per cent; its attention is the one over the batch.
PAPER = {
    ("none", "none"): "82.88",
    ("none", "extraction"): "77.72",
    ("batch", "none"): "90.71",
    ("batch", "extraction"): "95.55",
}

INTRODUCTION = f"""PAtt-Lite (IEEE Access 2024, table 4) with attention, patch extraction, both and
neither, on FERPlus: learnt from its training part end to end, from ImageNet's weights, at {SIDE}
pixels; attention, patches and seed are all that differs (`training/experiments/expression.py` has
the recipe). Figures are of the test part, labelled as the paper does ("argmax8"), each face asked
alone. Nothing was chosen by them: the settings were fixed beforehand, and the network is that of
the last step. They are lower than those of the network that ships, which learns longer and from
larger images.

Attention here runs over the patches of one face; without patch extraction, over the positions of
its map. The published network's attention runs over the faces of a batch instead: it is kept as an
arm to show what it does."""

READING = """In per cent; in brackets 95 %, over faces (a bootstrap of the test), then, where there
are several seeds, over seeds (Student's t). The paper's column is from two stages at 224 pixels,
and its attention is the published one: its rows with attention stand beside ours over the batch."""

TOGETHER_READING = """The same weights, asked in three ways. Attention within a face cannot see the
faces beside it, so the way changes nothing. The published attention makes of each face a mean of
those in its batch that are like it. A batch of one class then holds the answer: the faces beside a
hard one say what it is. The published evaluation's test batches are of one class each (the test is
built class folder by class folder and never shuffled), which is where 95.55 % comes from: it is no
accuracy on a photograph that somebody sends."""

DIFFERENCES = """The same seed on both sides: the same batches in the same order. In brackets 95 %,
over faces (the same draws on both sides), then over seeds."""


def write_page(
    found: Sequence[Mapping[str, Any]], planned: Sequence[Arm], seeds: int, out: Path
) -> None:
    """Writes out (.md), and its picture (.png) and facts (.json) beside it.

    found: figures of finished runs, of the planned arms or others. seeds: planned for each arm.
    Raises ValueError without a finished run."""
    if not found:
        raise ValueError(f"{out}: no run of the expression ablation is finished yet")
    by_arm = _by_arm(found)
    done = [(arm, seed) for arm in by_arm for seed in by_arm[arm]]
    missing = {(arm, seed) for arm in planned for seed in range(1, seeds + 1)} - set(done)
    facts = {"command": COMMAND, "finished": len(found), "planned": len(found) + len(missing)}
    facts |= summary(found, by_arm)
    facts["says"] = says(facts)
    picture = out.with_suffix(".png")
    draw_arms(
        {title: _dots(by_arm, name) for title, name in ASKED.items()},
        "accuracy on FERPlus's test, %; dots: seeds; bars: 95 % over faces",
        picture,
    )
    recipe = found[0]["recipe"]
    parts = [
        "# Ablation: attention and patches for expressions",
        f"Made by `{COMMAND}`; {len(found)} of {facts['planned']} runs are finished.",
        INTRODUCTION,
        f"![What each arm reaches]({picture.name})",
        "## What may be said",
        "\n".join(f"- {sentence}" for sentence in facts["says"]),
        "## Arms",
        _arms_table(by_arm),
        READING,
        "## What faces beside a face do",
        _together_table(by_arm),
        TOGETHER_READING,
        "## Differences",
        differences(facts),
        "## Machine",
        f"{machines(found)}. {sum(run['seconds'] for run in found) / 60:.0f} minutes of training "
        f"in all. Steps a run: {recipe['steps']:,} of {recipe['batch']}.",
    ]
    put(out, "\n\n".join(part for part in parts if part) + "\n", facts)


def summary(found: Sequence[Mapping[str, Any]], by_arm: Mapping[Arm, Runs]) -> dict[str, Any]:
    """The page as JSON, but for what it `says`. Shares in [0, 1], seconds."""
    apart = ("name", "seed", "attention", "patches")
    changes = [
        {
            "from": a,
            "to": b,
            **{name: changed(by_arm[a], by_arm[b], name) for name in FIGURES},
        }
        for a, b in combinations(by_arm, 2)
        if (a[0] == b[0]) != (a[1] == b[1]) and by_arm[a].keys() & by_arm[b].keys()
    ]
    return {
        "recipe": {k: v for k, v in found[0]["recipe"].items() if k not in apart},
        "machines": machines(found),
        "arms": [
            {
                "attention": arm[0],
                "patches": arm[1],
                "seeds": sorted(runs),
                **{name: reached(runs, name) for name in next(iter(runs.values()))["figures"]},
            }
            for arm, runs in by_arm.items()
        ],
        "differences": changes,
    }


def says(facts: Mapping[str, Any]) -> list[str]:
    """A sentence for each difference among the facts and each arm of the published attention."""
    guess, unlearnt = 1 - 1 / len(CLASSES), {}
    for arm in facts["arms"]:
        accuracy = arm["accuracy"]
        if not has_learnt(1 - accuracy["mean"], guess):
            named = f"{NAMES[arm['attention']]} with patches {arm['patches']}"
            name = f"{named} (accuracy {100 * accuracy['mean']:.2f} %)"
            unlearnt[arm["attention"], arm["patches"]] = name
    sentences = []
    for change in facts["differences"]:
        sides = (tuple(change["from"]), tuple(change["to"]))
        sentences.append(_sentence(change, [unlearnt[side] for side in sides if side in unlearnt]))
    published = [arm for arm in facts["arms"] if arm["attention"] == "batch"]
    return sentences + [_beside(arm) for arm in published]


def say_again(out: Path) -> None:
    """The sentences of a page whose runs are gone, once more; raises as page.say_again does."""
    page.say_again(out, says, differences)


def differences(facts: Mapping[str, Any]) -> str:
    """The section about the differences among the facts."""
    return "\n\n".join([_differences_table(facts["differences"]), DIFFERENCES, RULE])


def _by_arm(found: Sequence[Mapping[str, Any]]) -> dict[Arm, Runs]:
    """{arm: {seed: run}} of the arms that have a run, in the page's order."""
    runs: dict[Arm, dict[int, Any]] = {(a, p): {} for a in ATTENTIONS for p in PATCHES}
    for run in found:
        recipe = run["recipe"]
        runs[recipe["attention"], recipe["patches"]][recipe["seed"]] = run
    return {arm: of for arm, of in runs.items() if of}


def _sentence(change: Mapping[str, Any], unlearnt: Sequence[str]) -> str:
    before, after, told = change["from"], change["to"], change["accuracy"]
    if before[0] == after[0]:
        what = f"Patch extraction in place of none (with {NAMES[after[0]]})"
    else:
        beside = "patch extraction" if after[1] == "extraction" else "no patches"
        what = f"{NAMES[after[0]].capitalize()} in place of {NAMES[before[0]]} (with {beside})"
    return (
        f"{what}: accuracy on FERPlus's test by {cell(told, signed=True)} points, {over(told)}: "
        f"{verdict(told, unlearnt)}."
    )


def _beside(arm: Mapping[str, Any]) -> str:
    alone, shuffled, by_class = (arm[name] for name in ASKED.values())
    beside = "with patch extraction" if arm["patches"] == "extraction" else "without patches"
    return (
        f"The published attention, over the batch ({beside}): accuracy {cell(alone)} % where each "
        f"face is asked alone, {cell(shuffled)} % in shuffled batches of {TOGETHER}, "
        f"{cell(by_class)} % in batches of one class after the other, {over(alone)}; the published "
        "figure (95.55 %) is of batches of one class. The networks that ship do not do this."
    )


def _arms_table(by_arm: Mapping[Arm, Runs]) -> str:
    rows = []
    for arm, runs in by_arm.items():
        cells = [cell(reached(runs, name)) for name in FIGURES]
        minutes = sum(run["seconds"] for run in runs.values()) / len(runs) / 60
        places = [CELLS[arm[0]], arm[1], str(len(runs))]
        rows.append([*places, *cells, PAPER.get(arm, ""), f"{minutes:.1f}"])
    heads = ["attention", "patches", "seeds", *FIGURES.values()]
    return markdown([*heads, "the paper's accuracy", "minutes a run"], rows)


def _together_table(by_arm: Mapping[Arm, Runs]) -> str:
    rows = [
        [CELLS[arm[0]], arm[1], *(cell(reached(runs, name)) for name in ASKED.values())]
        for arm, runs in by_arm.items()
    ]
    return markdown(["attention", "patches", *ASKED], rows)


def _differences_table(changes: Sequence[Mapping[str, Any]]) -> str:
    rows = [
        [
            *(
                f"{CELLS[attention]}, {patches}"
                for attention, patches in (change["from"], change["to"])
            ),
            str(change["accuracy"]["count"]),
            *(cell(change[name], signed=True) for name in FIGURES),
        ]
        for change in changes
    ]
    heads = ["from (attention, patches)", "to", "seeds", *FIGURES.values()]
    return markdown(heads, rows) if rows else ""


def _dots(
    by_arm: Mapping[Arm, Runs], name: str
) -> dict[str, tuple[list[float], tuple[float, float, float]]]:
    """{arm: (each seed's per cent, (mean, low, high) over faces)}, as draw_arms takes them."""
    found = {}
    for (attention, patches), runs in by_arm.items():
        told = reached(runs, name)
        bar = tuple(100 * told[key] for key in ("mean", "faces_low", "faces_high"))
        values = [100 * run["figures"][name] for run in runs.values()]
        found[f"{CELLS[attention]}, {patches}"] = (values, bar)
    return found
