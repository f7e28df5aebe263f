"""python -m training expression-ablation: PAtt-Lite's arms with every seed, and their page."""

import argparse
from pathlib import Path

from training.experiments.expression import STEPS, arms, name_of, read_data, run_arm
from training.experiments.expression_page import write_page
from training.experiments.runs import FIGURES, gather
from training.machine import this_machine
from training.verbs import Verbs, running

PAGE = Path(__file__).resolve().parents[2] / "docs" / "expression.md"
SEEDS = 1


def add_to(verbs: Verbs, places: argparse.ArgumentParser) -> None:
    verb = verbs.add_parser(
        "expression-ablation",
        parents=[places],
        help="PAtt-Lite's attention and patches compared; goes on where it stopped",
    )
    verb.set_defaults(call=run)
    verb.add_argument("--seeds", type=int, default=SEEDS, help=f"{SEEDS} unless given")
    verb.add_argument("--steps", type=int, default=STEPS, help=f"of each run; {STEPS} unless given")
    verb.add_argument(
        "--full", action="store_true", help="the published attention without patches, too"
    )
    verb.add_argument("--page", action="store_true", help="write the page alone; train nothing")
    verb.add_argument(
        "--out",
        type=Path,
        help="docs/expression.md, unless --steps is another or --seeds are fewer",
    )


def run(a: argparse.Namespace) -> None:
    """The seeds one after the other, so that what is finished can always be compared."""
    folder = a.runs / "expression-ablation" / f"steps-{a.steps}"
    whole = a.steps == STEPS and a.seeds >= SEEDS
    page = a.out or (PAGE if whole else folder / PAGE.name)
    planned = arms(full=a.full)
    to_do = [
        (arm, seed)
        for seed in range(1, a.seeds + 1)
        for arm in planned
        if not (folder / name_of(arm, seed) / FIGURES).exists()
    ]
    if a.page or not to_do:
        write_page(gather(folder), planned, a.seeds, page)
        return
    with running(a.threads):
        data, machine = read_data(a.data), this_machine("cpu")
        for done, (arm, seed) in enumerate(to_do, 1):
            print(f"run {done} of {len(to_do)}: {name_of(arm, seed)}", flush=True)
            run_arm(arm, seed, a.steps, data, folder, machine)
            write_page(gather(folder), planned, a.seeds, page)
