"""python -m training ablation: every arm's run with every seed, and the page of those finished."""

import argparse
from collections.abc import Callable

from training.experiments.ablation import STEPS, Arm, arms, name_of, read_data, run_arm
from training.experiments.ablation_page import say_again, write_page
from training.experiments.runs import complete
from training.machine import this_machine
from training.verbs import Verbs, places_of, plan, running


def add_to(verbs: Verbs, places: argparse.ArgumentParser) -> None:
    verb = verbs.add_parser(
        "ablation",
        parents=[places],
        help="attentions and losses compared; goes on where it stopped",
    )
    verb.set_defaults(call=run)
    plan(verb, "ablation.md", seeds=3, steps=STEPS)
    verb.add_argument("--full", action="store_true", help="every attention with every loss")


def run(a: argparse.Namespace) -> None:
    folder, page = places_of(a, "ablation")
    planned = arms(full=a.full)

    def begin() -> Callable[[Arm, int], None]:
        data, machine = read_data(a.data, a.runs / "cache"), this_machine("cpu")
        return lambda arm, seed: run_arm(arm, seed, a.steps, data, folder, machine)

    with running(a.threads):
        complete(
            planned,
            a.seeds,
            folder,
            name_of=name_of,
            begin=begin,
            page=lambda found: write_page(found, planned, a.seeds, page),
            train_none=a.page,
            say_again=lambda: say_again(page),
        )
