"""python -m training surgery: HSANet's experiment, every network with every seed, and its page."""

import argparse
from pathlib import Path

import cv2

from training.experiments.runs import FIGURES, gather
from training.experiments.surgery import (
    EPOCHS,
    NETWORKS,
    read_people,
    recipe_of_network,
    run_network,
    sheet,
)
from training.experiments.surgery_page import write_page
from training.machine import this_machine
from training.verbs import Verbs, running

PAGE = Path(__file__).resolve().parents[2] / "docs" / "surgery.md"


def add_to(verbs: Verbs, places: argparse.ArgumentParser) -> None:
    verb = verbs.add_parser(
        "surgery", parents=[places], help="people after micro-surgery, by HSANet and ResNet-50"
    )
    verb.set_defaults(call=run)
    verb.add_argument("--seeds", type=int, default=3)
    verb.add_argument("--epochs", type=int, default=EPOCHS, help=f"{EPOCHS} unless given")
    verb.add_argument("--page", action="store_true", help="write the page alone; train nothing")
    verb.add_argument("--out", type=Path, help="docs/surgery.md, unless --epochs is another")
    verb.add_argument(
        "--sheet",
        type=Path,
        metavar="FILE.png",
        help="some of the people before and after, for the eye; trains nothing",
    )


def run(a: argparse.Namespace) -> None:
    """The seeds one after the other, so that what is finished can always be compared."""
    folder = a.runs / "surgery" / f"epochs-{a.epochs}"
    page = a.out or (PAGE if a.epochs == EPOCHS else folder / PAGE.name)
    to_do = [
        (network, seed)
        for seed in range(1, a.seeds + 1)
        for network in NETWORKS
        if not (folder / recipe_of_network(network, seed).name / FIGURES).exists()
    ]
    with running(a.threads):
        if a.sheet:
            cv2.imwrite(str(a.sheet), sheet(read_people(a.data, a.runs / "cache"))[:, :, ::-1])
            return
        if a.page or not to_do:
            write_page(gather(folder), a.seeds, page)
            return
        people, machine = read_people(a.data, a.runs / "cache"), this_machine("cpu", step="plain")
        for done, (network, seed) in enumerate(to_do, 1):
            print(f"run {done} of {len(to_do)}: {network}, seed {seed}", flush=True)
            run_network(network, seed, a.epochs, people, folder, machine)
            write_page(gather(folder), a.seeds, page)
