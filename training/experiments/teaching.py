"""How a student is best taught: what the teachers are asked about, which teachers, which crops.

Every arm goes on from the same kept network, takes as many steps of as many crops and a rate that
falls to zero, and is measured on validation's people alone, by whom the long run's recipe is
chosen. An arm differs from the one that it is compared with in one thing."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from training.experiments import people
from training.experiments.runs import run_once
from training.loop import Run
from training.machine import Machine
from training.recipes import Sources
from training.recipes.recognition import Recipe, ecacface_mobile
from training.recognition import embed, prepare, validation_crops

STEPS = 300
RATE = 8e-4
OLD, ALL = "train unlabelled", "train families unlabelled strangers"
BOTH = "edgeface_xs teacher"


@dataclass(frozen=True)
class Arm:
    """changes: of the recipe. beside: the arm that it differs from in one thing, if there is
    one."""

    title: str
    changes: dict[str, Any]
    beside: str | None = None


ARMS: dict[str, Arm] = {
    "today": Arm(
        "one teacher, asked once about each clean crop; mild augmentation",
        {"sets": OLD, "teachers": "teacher", "consistent": False, "augmentation": "mild"},
    ),
    "consistent": Arm(
        "the same teacher, asked about the crop that is seen; augmentation as the service meets it",
        {"sets": OLD, "teachers": "teacher", "consistent": True, "augmentation": "served"},
        "today",
    ),
    "both": Arm(
        "two teachers, their answers side by side and projected",
        {"sets": OLD, "teachers": BOTH, "consistent": True, "augmentation": "served"},
        "consistent",
    ),
    "all": Arm(
        "all crops",
        {"sets": ALL, "teachers": BOTH, "consistent": True, "augmentation": "served"},
        "both",
    ),
    "edgeface": Arm(
        "EdgeFace-XS alone",
        {"sets": ALL, "teachers": "edgeface_xs", "consistent": True, "augmentation": "served"},
        "all",
    ),
    "mixtures": Arm(
        "mixtures of two faces, three in ten crops",
        {
            "sets": ALL,
            "teachers": BOTH,
            "consistent": True,
            "augmentation": "served",
            "mixtures": 0.3,
        },
        "all",
    ),
}


def recipe_of_arm(name: str, seed: int, steps: int = STEPS) -> Recipe:
    """The shipped recipe as this arm changes it, over few steps."""
    fixed = {
        "name": name_of(name, seed),
        "mixtures": 0.0,
        "learning_rate": RATE,
        "warmup_steps": min(20, steps),
        "steps": steps,
        "decay_steps": steps,
        "validate_every": steps,
        "seed": seed,
    }
    return replace(ecacface_mobile(), **{**fixed, **ARMS[name].changes})


def name_of(name: str, seed: int) -> str:
    return f"{name}-{seed}"


def run_arm(
    name: str, seed: int, steps: int, warm: Path, sources: Sources, folder: Path, machine: Machine
) -> None:
    """The arm's run in its own folder below `folder`, from the kept network `warm`; nothing if it
    is finished. Raises as recognition.prepare does."""
    run_once(
        recipe_of_arm(name, seed, steps),
        folder / name_of(name, seed),
        lambda recipe: prepare(recipe, sources, machine),
        lambda run, _: measure(run, sources),
        warm=warm,
    )


def measure(run: Run, sources: Sources) -> dict[str, Any]:
    """figures: in [0, 1], by name, of validation's people. rounds: their bootstrap."""
    unseen = validation_crops(sources)
    network, pixel_scale = run.learns["network"], run.recipe.pixel_scale
    embeddings_ND = embed(network, unseen.pixels_NHWC, pixel_scale=pixel_scale)
    rounds = people.figures(embeddings_ND, unseen.labels_N)
    return {
        "figures": {name: float(values[0]) for name, values in rounds.items()},
        "rounds": {name: np.round(values, 6).tolist() for name, values in rounds.items()},
    }
