"""python -m training expression-ablation: PAtt-Lite's arms with every seed, and their page."""

import argparse
from collections.abc import Callable

from training.experiments.expression import STEPS, Arm, arms, name_of, read_data, run_arm
from training.experiments.expression_page import say_again, write_page
from training.experiments.runs import complete
from training.machine import this_machine
from training.verbs import Verbs, places_of, plan, running


def add_to(verbs: Verbs, places: argparse.ArgumentParser) -> None:
    verb = verbs.add_parser(
        "expression-ablation",
        parents=[places],
        help="PAtt-Lite's attention and patches compared; goes on where it stopped",
    )
    verb.set_defaults(call=run)
    plan(verb, "expression.md", seeds=1, steps=STEPS)
    verb.add_argument(
        "--full", action="store_true", help="the published attention without patches, too"
    )


def run(a: argparse.Namespace) -> None:
    folder, page = places_of(a, "expression-ablation")
    planned = arms(full=a.full)

    def begin() -> Callable[[Arm, int], None]:
        data, machine = read_data(a.data), this_machine("cpu")
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
