"""python -m training surgery: HSANet's experiment, every network with every seed, and its page."""

import argparse
from collections.abc import Callable
from pathlib import Path

import cv2

from training.experiments.runs import complete
from training.experiments.surgery import (
    EPOCHS,
    NETWORKS,
    read_people,
    recipe_of_network,
    run_network,
    sheet,
)
from training.experiments.surgery_page import say_again, write_page
from training.machine import this_machine
from training.verbs import Verbs, places_of, plan, running


def add_to(verbs: Verbs, places: argparse.ArgumentParser) -> None:
    verb = verbs.add_parser(
        "surgery", parents=[places], help="people after micro-surgery, by HSANet and ResNet-50"
    )
    verb.set_defaults(call=run)
    plan(verb, "surgery.md", seeds=3, epochs=EPOCHS)
    verb.add_argument(
        "--sheet",
        type=Path,
        metavar="FILE.png",
        help="some of the people before and after, for the eye; trains nothing",
    )


def run(a: argparse.Namespace) -> None:
    folder, page = places_of(a, "surgery")

    def begin() -> Callable[[str, int], None]:
        people, machine = read_people(a.data, a.runs / "cache"), this_machine("cpu", step="plain")
        return lambda network, seed: run_network(network, seed, a.epochs, people, folder, machine)

    with running(a.threads):
        if a.sheet:
            cv2.imwrite(str(a.sheet), sheet(read_people(a.data, a.runs / "cache"))[:, :, ::-1])
            return
        complete(
            tuple(NETWORKS),
            a.seeds,
            folder,
            name_of=lambda network, seed: recipe_of_network(network, seed).name,
            begin=begin,
            page=lambda found: write_page(found, a.seeds, page),
            train_none=a.page,
            say_again=lambda: say_again(page),
        )
