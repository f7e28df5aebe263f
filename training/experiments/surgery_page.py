"""The page of HSANet's experiment, from whatever runs are finished."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import combinations
from pathlib import Path
from typing import Any

from training.evaluate.plots import draw_epochs
from training.experiments import claims, page
from training.experiments.claims import RULE, has_learnt
from training.experiments.page import machines, markdown, put
from training.experiments.seeds import Estimate, over_seeds, paired, percent
from training.experiments.surgery import EACH, KNOWN_AFTER, NETWORKS, PEOPLE, WIDTH

COMMAND = "python -m training surgery"
# Title, and what the paper has for ResNet50, HSANet(x) and HSANet(3x3): its text on figures 5 to 8
# and its table 1, whose column "f1-score" is no mean that we know.
FIGURES = {
    "training_mean": ("training accuracy, mean over epochs", ("89.0350", "91.7801", "94.4301")),
    "training_max": ("training accuracy, best epoch", ("98.1418", "98.7654", "98.7757")),
    "validation_mean": ("validation accuracy, mean over epochs", ("66.8275", "76.0003", "72.1407")),
    "validation_max": ("validation accuracy, best epoch", ("87.0270", "89.7011", "88.6486")),
    "validation_last": ("validation accuracy, last epoch", ()),
    "accuracy_before": ("the same photographs before surgery, last epoch", ()),
    "macro_f1_best": ("macro F1, epoch of the best accuracy", ("50", "52", "58")),
    "macro_f1_mean": ("macro F1, mean over epochs", ("50", "52", "58")),
    "weighted_f1_best": ("weighted F1, epoch of the best accuracy", ("50", "54", "59")),
    "weighted_f1_mean": ("weighted F1, mean over epochs", ("50", "54", "59")),
}
DECIDES = ("validation_mean", "validation_last")  # no epoch is chosen for either

INTRODUCTION = f"""HSANet's paper tells {PEOPLE} people apart by small sets of their photographs,
with changes as of micro-surgery among them, by ResNet-50 and by two networks whose last stage pays
attention: beside it runs the block's input as it is (x) or a 3x3 convolution (3x3).

Here: {PEOPLE} people of `identities/train` with {EACH} photographs each. A person has one surgery,
three of seven procedures at half strength or more (`training/data/surgery.py`: lids, eyes, bridge
and wings of the nose, lips, jaw, chin, as smooth local warps of the aligned crop). A seed divides
each person's photographs 8:2; all of the validation's are seen after the surgery, {KNOWN_AFTER} of
those that a person is learnt from too, the rest before it. All networks have the paper's settings
(rate 0.005, batch 4, 50 epochs) on crops of 112 pixels with width {WIDTH} in place of 64; the first
weights, the division and the order of photographs differ by seed, and a seed divides and orders for
all three alike."""

READING = """In per cent; in brackets 95 %, Student's t over the seeds. The best epoch is the best
on the very photographs that it is told of, as in the paper: it flatters. The paper's figures stand
in their own column and cannot be compared with ours:

- its photographs are private, and what they are made of is illegible in the text that we have;
- its surgeries are real people's or of its own making; ours are warps of one design;
- the networks here have a quarter of the weights and a quarter of the pixels;
- optimizer and augmentation are read into it, and whether it began from ImageNet's weights it does
  not say; ours begin from random ones;
- it contradicts itself: F1 of 0.50 to 0.60 stands beside accuracies of 87 to 90 % of the same
  networks, and 89.70 is (3x3)'s in its abstract but (x)'s by its text's legend, which is followed
  here."""

DIFFERENCES = """The same seed on both sides: the same division, the same photographs in the same
order. In brackets 95 %, Student's t of the paired differences over the seeds. There is no interval
over people or photographs beside it, so that nothing is claimed of any change."""


def write_page(found: Sequence[Mapping[str, Any]], seeds: int, out: Path) -> None:
    """Writes out (.md), and its picture (.png) and facts (.json) beside it.

    found: figures of finished runs. seeds: planned. Raises ValueError without a finished run."""
    if not found:
        raise ValueError(f"{out}: no run of the surgery experiment is finished yet")
    runs = {name: _of_network(found, name) for name in NETWORKS}
    missing = sum(seed not in of for of in runs.values() for seed in range(1, seeds + 1))
    facts = {"command": COMMAND, "finished": len(found), "planned": len(found) + missing}
    facts |= summary(runs)
    facts["says"] = says(facts)
    picture = out.with_suffix(".png")
    draw_epochs(_curves(runs), picture)
    counts = found[0]["photographs"]
    parts = [
        "# HSANet's experiment: people after micro-surgery",
        f"Made by `{COMMAND}`; {len(found)} of {facts['planned']} runs are finished.",
        INTRODUCTION,
        f"Photographs a run: {counts['learnt']} to learn from, {counts['validation']} to validate "
        f"by. Epochs a run: {len(found[0]['epochs'])}.",
        f"![Accuracy by epoch]({picture.name})",
        "## What may be said",
        "\n".join(f"- {sentence}" for sentence in facts["says"]),
        "## Networks",
        _networks_table(runs),
        READING,
        "## Differences",
        differences(facts),
        "## Machine",
        f"{machines(found)}. {sum(run['seconds'] for run in found) / 3600:.1f} hours of training "
        "in all.",
        _costs_table(runs),
    ]
    put(out, "\n\n".join(part for part in parts if part) + "\n", facts)


def summary(runs: Mapping[str, Mapping[int, Mapping[str, Any]]]) -> dict[str, Any]:
    """The page as JSON, but for `says`, which are sentences for a card. Shares in [0, 1]."""
    changes = [change for a, b in combinations(runs, 2) if (change := _change(runs, a, b))]
    networks = [
        {
            "network": name,
            "seeds": sorted(of),
            **{key: asdict(over_seeds(list(_values(of, key).values()))) for key in FIGURES},
        }
        for name, of in runs.items()
        if of
    ]
    return {"networks": networks, "differences": changes}


def says(facts: Mapping[str, Any]) -> list[str]:
    """A sentence for each difference among the facts and each figure that decides."""
    guess, sentences = 1 - 1 / PEOPLE, []
    for change in facts["differences"]:
        for name in DECIDES:
            sides = (change["from"], change["to"])
            of = [network for network in facts["networks"] if network["network"] in sides]
            unlearnt = [
                f"{network['network']} ({100 * network[name]['mean']:.2f} %)"
                for network in of
                if not has_learnt(1 - network[name]["mean"], guess)
            ]
            sentences.append(_sentence(change, name, unlearnt))
    return sentences


def say_again(out: Path) -> None:
    """The sentences of a page whose runs are gone, once more; raises as page.say_again does."""
    page.say_again(out, says, differences)


def differences(facts: Mapping[str, Any]) -> str:
    """The section about the differences among the facts."""
    return "\n\n".join([_differences_table(facts["differences"]), DIFFERENCES, RULE])


def _of_network(found: Sequence[Mapping[str, Any]], name: str) -> dict[int, Mapping[str, Any]]:
    """{seed: run}"""
    return {run["recipe"]["seed"]: run for run in found if run["network"] == name}


def _values(runs: Mapping[int, Mapping[str, Any]], name: str) -> dict[int, float]:
    return {seed: run["figures"][name] for seed, run in sorted(runs.items())}


def _change(
    runs: Mapping[str, Mapping[int, Mapping[str, Any]]], before: str, after: str
) -> dict[str, Any]:
    """What the other network brings; {} where no seed is finished on both sides."""
    seeds = sorted(runs[before].keys() & runs[after].keys())
    if not seeds:
        return {}
    told = {
        name: asdict(paired(_values(runs[before], name), _values(runs[after], name)))
        for name in FIGURES
    }
    return {"from": before, "to": after, "seeds": seeds, **told}


def _sentence(change: Mapping[str, Any], name: str, unlearnt: Sequence[str]) -> str:
    told = Estimate(**change[name])
    over = "one seed" if told.count == 1 else f"{told.count} seeds"
    verdict = claims.verdict([(told.low, told.high)], unlearnt=unlearnt)
    return (
        f"{change['to']} in place of {change['from']}: {FIGURES[name][0]} by "
        f"{percent(told, signed=True)} points, {over}: {verdict}."
    )


def _networks_table(runs: Mapping[str, Mapping[int, Mapping[str, Any]]]) -> str:
    rows = []
    for name, (title, paper) in FIGURES.items():
        for network, theirs in zip(NETWORKS, paper or [""] * len(NETWORKS), strict=True):
            of = runs[network]
            ours = percent(over_seeds(list(_values(of, name).values()))) if of else ""
            rows.append([title, network, str(len(of)), ours, theirs])
    return markdown(["figure", "network", "seeds", "ours, %", "the paper's, %"], rows)


def _differences_table(changes: Sequence[Mapping[str, Any]]) -> str:
    names = [name for name in FIGURES if name != "accuracy_before"]
    rows = [
        [
            FIGURES[name][0],
            *(percent(Estimate(**change[name]), signed=True) for change in changes),
        ]
        for name in names
    ]
    heads = [
        f"{change['from']} -> {change['to']}, {len(change['seeds'])} seeds" for change in changes
    ]
    return markdown(["points", *heads], rows) if changes else ""


def _costs_table(runs: Mapping[str, Mapping[int, Mapping[str, Any]]]) -> str:
    rows = []
    for network, of in runs.items():
        if of:
            minutes = sum(run["seconds"] for run in of.values()) / len(of) / 60
            parameters = next(iter(of.values()))["parameters"]
            rows.append([network, f"{parameters:,}", f"{minutes:.1f}"])
    return markdown(["network", "parameters", "minutes a run"], rows)


def _curves(
    runs: Mapping[str, Mapping[int, Mapping[str, Any]]],
) -> dict[str, dict[str, list[list[float]]]]:
    """{panel: {network: [each seed's per cent by epoch]}}"""
    panels = {"training accuracy, %": "epoch_accuracy", "validation accuracy, %": "accuracy"}
    return {
        panel: {
            network: [[100 * row[key] for row in run["epochs"]] for run in of.values()]
            for network, of in runs.items()
            if of
        }
        for panel, key in panels.items()
    }
