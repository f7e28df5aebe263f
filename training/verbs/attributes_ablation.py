"""python -m training attributes-ablation: MZTS's arms with every seed, and their page."""

import argparse
from collections.abc import Callable

from training.experiments.attributes import ARMS, STEPS, name_of, read_data, run_arm
from training.experiments.attributes_page import say_again, write_page
from training.experiments.runs import complete
from training.machine import this_machine
from training.verbs import Verbs, places_of, plan, running


def add_to(verbs: Verbs, places: argparse.ArgumentParser) -> None:
    verb = verbs.add_parser(
        "attributes-ablation",
        parents=[places],
        help="MZTS's zones and self-distillation compared; goes on where it stopped",
    )
    verb.set_defaults(call=run)
    plan(verb, "attributes.md", seeds=3, steps=STEPS)


def run(a: argparse.Namespace) -> None:
    folder, page = places_of(a, "attributes-ablation")

    def begin() -> Callable[[str, int], None]:
        data, machine = read_data(a.data), this_machine("cpu")
        return lambda arm, seed: run_arm(arm, seed, a.steps, data, folder, machine)

    with running(a.threads):
        complete(
            ARMS,
            a.seeds,
            folder,
            name_of=name_of,
            begin=begin,
            page=lambda found: write_page(found, a.seeds, page),
            train_none=a.page,
            say_again=lambda: say_again(page),
        )
