"""HSANet's experiment: people known before micro-surgery, to be told after it, by three networks.

The paper's photographs are private and how they are made up is illegible, so ours are made up here:
26 people, 36 photographs of each as they are, and a surgery a person (data/surgery.py). A seed
divides each person's photographs 8:2. The validation's are all seen after the surgery; of those
learnt from two of each person, the others before. No photograph is in both parts, in either state.
The paper's settings are kept, but for what two cores cannot do: crops of 112 instead of 224 pixels,
and a quarter of the channels in every layer."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training import closed_set
from training.data.crops import Crops
from training.data.pixels import chosen
from training.data.sets import read_set
from training.data.surgery import SIDE, operate, surgery_of
from training.experiments.runs import run_once
from training.loop import Run
from training.machine import Machine
from training.recipes import DataAbsent
from training.recipes.closed_set import Recipe, hsanet_3x3, hsanet_x, resnet50
from training.report import read_log

NETWORKS: dict[str, Callable[[], Recipe]] = {
    "ResNet50": resnet50,
    "HSANet(x)": hsanet_x,
    "HSANet(3x3)": hsanet_3x3,
}
PEOPLE, EACH = 26, 36  # 182 to validate by; the paper's accuracies tell of 185
KNOWN_AFTER = 2  # of a person's photographs that are learnt from
WIDTH, EPOCHS = 16, 50
DRAWN_BY = 0  # the seed of the photographs and surgeries, the same for every run


@dataclass(frozen=True)
class Photographs:
    """learnt: mostly before. after: the validation. before: the validation without surgery."""

    learnt: Crops
    after: Crops
    before: Crops


def read_people(data: Path, cache: Path) -> Crops:
    """The experiment's people before surgery, of identities/train. Raises DataAbsent without it."""
    path = data / "identities" / "train.csv"
    if not path.exists():
        raise DataAbsent(f"the surgery experiment needs identities; found nothing at {path}")
    return most_pictured(read_set(path, cache))


def most_pictured(crops: Crops, people: int = PEOPLE, each: int = EACH) -> Crops:
    """`each` crops, drawn by DRAWN_BY, of the people with the most (by name where as many).

    Raises ValueError where there are fewer people or crops."""
    counts = np.bincount(crops.labels_N[crops.labels_N >= 0], minlength=len(crops.people))
    most = np.argsort(-counts, kind="stable")[:people]
    if len(most) < people or counts[most].min() < each:
        raise ValueError(f"{people} people with {each} crops or more each are needed")
    rng = np.random.default_rng(DRAWN_BY)
    places = [
        np.sort(rng.choice(np.flatnonzero(crops.labels_N == label), each, replace=False))
        for label in sorted(most)
    ]
    where = np.concatenate(places)
    return Crops(
        np.stack([crops.pixels_NHWC[i] for i in where]),
        [crops.paths[i] for i in where],
        np.repeat(np.arange(people), each),
        [crops.people[label] for label in sorted(most)],
    )


def photographs(people: Crops, seed: int) -> Photographs:
    """The parts of a seed, as the module says."""
    learnt, before = closed_set.divided(people, 0.8, seed)
    rng = np.random.default_rng((seed, len(people)))
    known_N = np.zeros(len(learnt), bool)
    for label in range(len(people.people)):
        own = np.flatnonzero(learnt.labels_N == label)
        known_N[rng.permutation(own)[:KNOWN_AFTER]] = True
    everyone_N = np.ones(len(before), bool)
    return Photographs(operated(learnt, known_N), operated(before, everyone_N), before)


def operated(crops: Crops, after_N: NDArray[np.bool_]) -> Crops:
    """The crops, those of after_N after their person's surgery."""
    pixels = np.stack(crops.pixels_NHWC[:])
    for i in np.flatnonzero(after_N):
        pixels[i] = operate(pixels[i], surgery_of(int(crops.labels_N[i]), seed=DRAWN_BY))
    return replace(crops, pixels_NHWC=pixels)


def recipe_of_network(network: str, seed: int, epochs: int = EPOCHS) -> Recipe:
    """The paper's, at the size that two cores can train."""
    paper = NETWORKS[network]()
    return replace(
        paper, name=f"{paper.name}-{seed}", size=SIDE, width=WIDTH, epochs=epochs, seed=seed
    )


def run_network(
    network: str, seed: int, epochs: int, people: Crops, folder: Path, machine: Machine
) -> None:
    """The network's run in its own folder below `folder`; nothing where it is finished."""
    recipe = recipe_of_network(network, seed, epochs)
    parts = photographs(people, seed)
    run_once(
        recipe,
        folder / recipe.name,
        lambda asked: closed_set.begin(asked, parts.learnt, parts.after, machine),
        lambda run, place: {"network": network, **measure(run, place, parts)},
    )


def measure(run: Run, folder: Path, parts: Photographs) -> dict[str, Any]:
    """epochs: each epoch's validation, its training accuracy among it. figures: what is made of
    them, in [0, 1]; parameters: of the network."""
    network, [only] = run.learns["network"], read_log(folder / "log.jsonl")
    epochs = [row for row in only.rows if "accuracy" in row]
    before = closed_set.figures(network, parts.before.pixels_NHWC, parts.before.labels_N)
    return {
        "epochs": epochs,
        "figures": {**of_epochs(epochs), "accuracy_before": before["accuracy"]},
        "parameters": sum(p.numel() for p in network.parameters()),
        "photographs": {"learnt": len(parts.learnt), "validation": len(parts.after)},
    }


def of_epochs(epochs: list[dict[str, float]]) -> dict[str, float]:
    """Means and maxima of the accuracies, as the paper has them; F1 of the epoch of the best
    accuracy (the first such) and its mean; and the last epoch's accuracy."""
    learnt, found = ([row[k] for row in epochs] for k in ("epoch_accuracy", "accuracy"))
    best = epochs[int(np.argmax(found))]
    told = {
        "training_mean": float(np.mean(learnt)),
        "training_max": max(learnt),
        "validation_mean": float(np.mean(found)),
        "validation_max": max(found),
        "validation_last": found[-1],
    }
    for name in ("macro_f1", "weighted_f1"):
        told[f"{name}_mean"] = float(np.mean([row[name] for row in epochs]))
        told[f"{name}_best"] = best[name]
    return told


def sheet(people: Crops, rows: int = 8) -> NDArray[np.uint8]:
    """Four photographs of each of the first people, every one before and after, as one picture."""
    lines = []
    for label in range(min(rows, len(people.people))):
        own = np.flatnonzero(people.labels_N == label)[:4]
        before = chosen(people.pixels_NHWC, own)
        after = [operate(crop, surgery_of(label, seed=DRAWN_BY)) for crop in before]
        pairs = [half for pair in zip(before, after, strict=True) for half in pair]
        lines.append(np.concatenate(pairs, axis=1))
    return np.concatenate(lines)
