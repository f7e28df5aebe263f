"""The ablation that ECACFace lives by: attention none, ECA and ESCA; softmax, ArcFace and
CurricularFace; everything else the same.

MobileFaceNet with its fifteen bottlenecks learns from labels alone on crops of half the side, so
that two cores can train every arm with several seeds in hours. One seed sees the same batches in
every arm; with one attention it also begins with the same weights. Nothing is chosen by any figure:
settings are the same for all, the network is the last step's."""

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from training.data.crops import Crops, join
from training.data.sets import read_set
from training.evaluate.pairs import similarities, tar_at_far, ten_fold
from training.evaluate.pairsets import PairSet, read_lfw
from training.evaluate.verification import verification
from training.experiments import people
from training.experiments.runs import run_once
from training.loop import Run
from training.machine import Machine
from training.recipes import DataAbsent
from training.recipes.recognition import Recipe
from training.recognition import begin, embed

ATTENTIONS = ("none", "eca", "esca")
LOSSES = ("softmax", "arcface", "curricular")
SIDE = 56  # pixels of a crop
STEPS = 900  # of 128 crops: about four times each of 29,363

Arm = tuple[str, str]  # attention, loss


@dataclass(frozen=True)
class Data:
    """Crops of SIDE x SIDE. train: to learn from. unseen: the people of validation and calibration,
    on whom the arms are compared; chosen_by: validation's alone, by whom an arm might be chosen.
    lfw: the test."""

    train: Crops
    unseen: Crops
    chosen_by: Crops
    lfw: PairSet


def arms(*, full: bool = False) -> list[Arm]:
    """Attentions with CurricularFace and losses with ESCA, five in all; full: all nine."""
    everything = [(attention, loss) for attention in ATTENTIONS for loss in LOSSES]
    return [arm for arm in everything if full or arm[0] == "esca" or arm[1] == "curricular"]


def recipe_of_arm(arm: Arm, seed: int, steps: int = STEPS) -> Recipe:
    """What an arm learns by: all but attention, loss and seed is the same.

    AdamW as in ecacface-mobile, whose settings these are where nothing is said: in so few steps
    ECACFace's own SGD at 0.1 would say more of the warm-up than of a margin."""
    attention, loss = arm
    return Recipe(
        name=name_of(arm, seed),
        network="mobile56",
        attention=attention,
        loss=loss,
        optimizer="adamw",
        learning_rate=2.5e-3,
        weight_decay=0.02,
        decays="matrices",
        classifier_share=0.1,
        batch=128,
        steps=steps,
        warmup_steps=min(100, steps // 10),
        decay_steps=steps // 2,
        validate_every=steps,
        augmentation="flip",
        seed=seed,
    )


def name_of(arm: Arm, seed: int) -> str:
    return f"{arm[0]}-{arm[1]}-{seed}"


def read_data(data: Path, cache: Path) -> Data:
    """The sets of `data`, made smaller once. Raises DataAbsent where one is not there."""
    identities = data / "identities"
    sets = [identities / f"{name}.csv" for name in ("train", "validation", "calibration")]
    absent = [path for path in (*sets, data / "lfw" / "pairs.txt") if not path.exists()]
    if absent:
        raise DataAbsent(f"the ablation needs identities and LFW; found nothing at {absent[0]}")
    train, validation, calibration = (smaller(read_set(path, cache)) for path in sets)
    lfw = read_lfw(data / "lfw")
    lfw = replace(lfw, pixels_NHWC=halved(lfw.pixels_NHWC))
    return Data(train, join(validation, calibration), validation, lfw)


def smaller(crops: Crops) -> Crops:
    return replace(crops, pixels_NHWC=halved(crops.pixels_NHWC))


def halved(pixels_NHWC: Any, side: int = SIDE) -> NDArray[np.uint8]:
    """uint8 (N, side, side, 3), in memory: means over area, of crops of any larger size."""
    out = np.empty((len(pixels_NHWC), side, side, 3), np.uint8)
    for i in range(len(out)):
        out[i] = cv2.resize(pixels_NHWC[i], (side, side), interpolation=cv2.INTER_AREA)
    return out


def run_arm(arm: Arm, seed: int, steps: int, data: Data, folder: Path, machine: Machine) -> None:
    """The arm's run in its own folder below `folder`; nothing where it is finished."""
    run_once(
        recipe_of_arm(arm, seed, steps),
        folder / name_of(arm, seed),
        lambda recipe: begin(recipe, data.train, None, None, machine),
        lambda run, _: measure(run, data),
    )


def measure(run: Run, data: Data) -> dict[str, Any]:
    """figures: in [0, 1], by name. rounds: of those that are over people, their bootstrap."""
    network = run.learns["network"]
    unseen = embed(network, data.unseen.pixels_NHWC)
    rounds = people.figures(unseen, data.unseen.labels_N)
    chosen_by = embed(network, data.chosen_by.pixels_NHWC)
    chosen = verification(chosen_by, data.chosen_by.labels_N).tar_at_far_1e3
    similarity_P = similarities(embed(network, data.lfw.pixels_NHWC), data.lfw.pairs)
    lfw = {
        "lfw_accuracy": float(ten_fold(similarity_P, data.lfw.pairs).mean()),
        "lfw_tar_at_far_1e3": tar_at_far(similarity_P, data.lfw.pairs.same_P, 1e-3),
    }
    return {
        "figures": {
            **{name: float(values[0]) for name, values in rounds.items()},
            **lfw,
            "validation_tar_at_far_1e3": math.nan if chosen is None else chosen,
        },
        "rounds": {name: np.round(values, 6).tolist() for name, values in rounds.items()},
    }
