"""PAtt-Lite's ablation (its table 4) on FERPlus: attention and patches, one or both or none; and
its published attention, which runs over the batch, asked in three ways.

All arms learn end to end from ImageNet's weights, on images of SIDE pixels and for few epochs, so
that two cores can train them within the hour. One seed sees the same batches in every arm. Nothing
is chosen by any figure: settings are the same for all, the network is the last step's."""

import copy
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.classification import logits_of
from training.data.expressions import ExpressionSet
from training.data.fer import read_ferplus
from training.data.framed import framed
from training.data.pixels import chosen
from training.experiments.faces import expression_rounds
from training.experiments.runs import run_once
from training.expression import begin, part
from training.loop import Run
from training.machine import Machine
from training.networks.patt_lite import PAttLite
from training.recipes import DataAbsent
from training.recipes.expression import Recipe, patt_lite

ATTENTIONS = ("none", "tokens", "batch")
PATCHES = ("none", "extraction")
SIDE = 80  # pixels; the least that gives 2 x 2 patches
STEPS = 2000  # of 64 faces: 4.6 times each of 27,867
TOGETHER = 32  # faces of a batch in the evaluation: Keras' default, and so the paper's

Arm = tuple[str, str]  # attention, patches


@dataclass(frozen=True)
class Data:
    """FERPlus's official parts by "argmax8", the paper's labels, and ImageNet's weights."""

    train: ExpressionSet
    validation: ExpressionSet
    test: ExpressionSet
    backbone: Path | None


def arms(*, full: bool = False) -> list[Arm]:
    """Table 4 with attention within a face, and the published network; full: the published
    attention without patches, too."""
    everything = [(attention, patches) for attention in ATTENTIONS for patches in PATCHES]
    return [arm for arm in everything if full or arm != ("batch", "none")]


def recipe_of_arm(arm: Arm, seed: int, steps: int = STEPS) -> Recipe:
    """What an arm learns by: all but attention, patches and seed is the same.

    As patt-lite, but with the paper's augmentation: so few epochs need no stronger one. Without a
    mean of weights, which would remember the first ones."""
    attention, patches = arm
    return replace(
        patt_lite(),
        name=name_of(arm, seed),
        attention=attention,
        patches=patches,
        size=SIDE,
        steps=steps,
        warmup_epochs=0.5,
        decay_steps=round(0.8 * steps),
        validate_every=steps,
        validation_rule="argmax8",
        average=0.0,
        augmentation="contrast",
        seed=seed,
    )


def name_of(arm: Arm, seed: int) -> str:
    return f"attention-{arm[0]}-patches-{arm[1]}-{seed}"


def read_data(data: Path) -> Data:
    """FERPlus below `data`, in memory. Raises DataAbsent where it or the weights are not there."""
    folder = data / "ferplus"
    backbone = data / "weights" / "mobilenet_v1_1.0_224.npz"
    for path in (folder / "fer2013new.csv", backbone):
        if not path.exists():
            raise DataAbsent(
                f"the ablation needs FERPlus and ImageNet's MobileNetV1; found nothing at {path}"
            )
    faces = read_ferplus(folder, rule="argmax8")
    faces = replace(faces, pixels=np.asarray(faces.pixels))
    parts = (part(faces, faces.split_N == name) for name in ("train", "validation", "test"))
    return Data(*parts, backbone)


def run_arm(arm: Arm, seed: int, steps: int, data: Data, folder: Path, machine: Machine) -> None:
    """The arm's run in its own folder below `folder`; nothing where it is finished."""
    run_once(
        recipe_of_arm(arm, seed, steps),
        folder / name_of(arm, seed),
        lambda recipe: _begin(recipe, data, machine),
        lambda run, _: measure(run, data.test),
    )


def measure(run: Run, test: ExpressionSet) -> dict[str, Any]:
    """figures, in [0, 1], by name, and rounds, their bootstrap over faces.

    accuracy and macro_f1 are of faces that are asked alone; accuracy_shuffled of faces in batches
    of TOGETHER in a drawn order, accuracy_sorted of faces in the order of their classes."""
    network = run.learns["network"]
    shuffled = np.random.default_rng(0).permutation(len(test))
    by_class = np.argsort(test.labels_N, kind="stable")
    rounds = _rounds(alone(network), test, np.arange(len(test)))
    for name, order in (("shuffled", shuffled), ("sorted", by_class)):
        rounds[f"accuracy_{name}"] = _rounds(network, test, order)["accuracy"]
    return {
        "figures": {name: float(values[0]) for name, values in rounds.items()},
        "rounds": {name: np.round(values, 6).tolist() for name, values in rounds.items()},
    }


def alone(network: PAttLite) -> PAttLite:
    """The network as each face is answered in a batch of its own: attention over a batch of one is
    none. It shares the weights."""
    if network.attention != "batch":
        return network
    view = copy.copy(network)
    view.attention = "none"
    return view


def _begin(recipe: Recipe, data: Data, machine: Machine) -> Run:
    with warnings.catch_warnings():  # of the published attention, which is what is to be shown
        warnings.filterwarnings("ignore", message="attention over the batch")
        return begin(recipe, data.train, data.validation, machine, data.backbone)


def _rounds(
    network: PAttLite, test: ExpressionSet, order_N: NDArray[np.int64]
) -> dict[str, NDArray[np.float64]]:
    """expression_rounds of the test's faces, asked in an order; in the test's own for the draws."""
    pixels = framed(chosen(test.pixels, order_N), (network.size, network.size))
    answers_N = np.empty(len(test), np.int64)
    answers_N[order_N] = logits_of(network, pixels, batch=TOGETHER).argmax(1)
    return expression_rounds(answers_N, test.labels_N, len(test.classes))
