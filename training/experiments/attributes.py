"""MZTS's ablation on CelebA: no zones, zones, zones that distil themselves.

All arms are the hybrid with ImageNet's MobileNetV1 for a stem, on crops of SIZE and for few epochs,
so that two cores can train them in an hour. One seed sees the same batches in every arm. Nothing is
chosen by any figure: settings are the same for all, the network is the last step's."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from training.attributes import begin, part
from training.classification import logits_of
from training.data.attributes import AttributeSet, read_celeba
from training.data.framed import framed
from training.experiments.faces import attribute_rounds
from training.experiments.runs import run_once
from training.loop import Run
from training.machine import Machine
from training.recipes import DataAbsent
from training.recipes.attributes import RECIPES, Recipe

ARMS = ("mzts-plain", "mzts-zones", "mzts")
SIZE = (80, 64)  # 20 tokens
STEPS = 600  # of 64 faces: six times each of 6,469


@dataclass(frozen=True)
class Data:
    """CelebA's official partitions, crops of SIZE, and ImageNet's weights."""

    train: AttributeSet
    validation: AttributeSet
    test: AttributeSet
    backbone: Path | None


def recipe_of_arm(arm: str, seed: int, steps: int = STEPS) -> Recipe:
    """What an arm learns by: all but zones, distillation and seed is the same.

    Without mixup, a mean of weights and strong augmentation, which are for many epochs."""
    return replace(
        RECIPES[arm](),
        name=name_of(arm, seed),
        size=SIZE,
        stem="mobilenet",
        stem_share=1.0,
        optimizer="muon",
        learning_rate=1e-3,
        mixup=0.0,
        steps=steps,
        warmup_epochs=0.5,
        decay_steps=steps,
        validate_every=steps,
        average=0.0,
        augmentation="mild",
        seed=seed,
    )


def name_of(arm: str, seed: int) -> str:
    return f"{arm}-{seed}"


def read_data(data: Path) -> Data:
    """CelebA below `data`, in memory. Raises DataAbsent where it or the weights are not there."""
    folder, backbone = data / "celeba", data / "weights" / "mobilenet_v1_1.0_224.npz"
    for path in (folder, backbone):
        if not path.exists():
            raise DataAbsent(
                f"the ablation needs CelebA and ImageNet's MobileNetV1; found nothing at {path}"
            )
    faces = read_celeba(folder)
    parts = (smaller(part(faces, split)) for split in ("train", "validation", "test"))
    return Data(*parts, backbone)


def smaller(faces: AttributeSet) -> AttributeSet:
    """The faces as crops of SIZE, in memory."""
    return replace(faces, pixels=np.asarray(framed(faces.pixels, SIZE)))


def run_arm(arm: str, seed: int, steps: int, data: Data, folder: Path, machine: Machine) -> None:
    """The arm's run in its own folder below `folder`; nothing where it is finished."""
    run_once(
        recipe_of_arm(arm, seed, steps),
        folder / name_of(arm, seed),
        lambda recipe: begin(recipe, data.train, data.validation, machine, data.backbone),
        lambda run, _: {"arm": arm, **measure(run, data)},
    )


def measure(run: Run, data: Data) -> dict[str, Any]:
    """figures, in [0, 1]: validation_ and test_, mean_accuracy and mean_balanced_accuracy; and
    rounds, their bootstrap over faces."""
    rounds = {}
    for split, faces in (("validation", data.validation), ("test", data.test)):
        logits_NA = logits_of(run.learns["network"], faces.pixels)
        found = attribute_rounds(logits_NA >= 0, faces.labels_NA)
        rounds |= {f"{split}_{name}": values for name, values in found.items()}
    return {
        "figures": {name: float(values[0]) for name, values in rounds.items()},
        "rounds": {name: np.round(values, 6).tolist() for name, values in rounds.items()},
        "majority_mean_accuracy": majority_accuracy(data.train, data.test),
    }


def majority_accuracy(train: AttributeSet, test: AttributeSet) -> float:
    """The mean accuracy on the test of always answering what most faces of the training have."""
    return float(((train.labels_NA.mean(0) >= 0.5) == test.labels_NA).mean())
