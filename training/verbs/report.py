"""python -m training report: a run's page, its curves as pictures."""

import argparse
from pathlib import Path

from training.report import report
from training.verbs import Verbs


def add_to(verbs: Verbs, places: argparse.ArgumentParser) -> None:
    verb = verbs.add_parser("report", help="a run's curves, recipe and speed as a page")
    verb.set_defaults(call=run)
    verb.add_argument("source", type=Path, help="a run's folder, or a log.jsonl")
    verb.add_argument(
        "--out", type=Path, required=True, help="PAGE.html, PAGE.md (and .png), PAGE.png"
    )


def run(a: argparse.Namespace) -> None:
    report(a.source, a.out)
