"""python -m training teaching: ways to teach the shipped network compared; goes on where it
stopped."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from training.checkpoint import rounds_of, warm_up
from training.experiments import people
from training.experiments.runs import complete
from training.experiments.teaching import ARMS, STEPS, name_of, run_arm
from training.experiments.teaching_page import write_page
from training.machine import this_machine
from training.recipes import Sources
from training.recognition import embed, network_of, recipe_of, validation_crops
from training.verbs import Verbs, places_of, plan, running


def add_to(verbs: Verbs, places: argparse.ArgumentParser) -> None:
    verb = verbs.add_parser(
        "teaching", parents=[places], help="ways to teach compared; goes on where it stopped"
    )
    verb.set_defaults(call=run)
    plan(verb, "teaching.md", seeds=1, steps=STEPS)
    verb.add_argument(
        "--warm", type=Path, required=True, help="the kept network that all go on from"
    )


def run(a: argparse.Namespace) -> None:
    folder, page = places_of(a, "teaching")
    sources = Sources(a.data, a.runs / "cache", threads=a.threads)

    def begin() -> Callable[[str, int], None]:
        machine = this_machine("cpu")
        return lambda arm, seed: run_arm(arm, seed, a.steps, a.warm, sources, folder, machine)

    with running(a.threads):
        start = _start(a.warm, sources)
        complete(
            list(ARMS),
            a.seeds,
            folder,
            name_of=name_of,
            begin=begin,
            page=lambda found: write_page(found, start, page),
            train_none=a.page,
            say_again=lambda: write_page([], start, page),
        )


def _start(warm: Path, sources: Sources) -> dict[str, Any]:
    """Figures and rounds of the network that all arms go on from."""
    recipe = recipe_of(rounds_of(warm)[-1])
    network, unseen = network_of(recipe), validation_crops(sources)
    warm_up(warm, network)
    embeddings_ND = embed(network, unseen.pixels_NHWC, pixel_scale=recipe.pixel_scale)
    rounds = people.figures(embeddings_ND, unseen.labels_N)
    return {
        "figures": {name: float(values[0]) for name, values in rounds.items()},
        "rounds": {name: np.asarray(values).tolist() for name, values in rounds.items()},
    }
