"""python -m training evaluate: the figures of any recognition graph."""

import argparse
import json
from pathlib import Path

from training.evaluate.figures import draw_calibration, evaluate
from training.verbs import Verbs


def add_to(verbs: Verbs, places: argparse.ArgumentParser) -> None:
    verb = verbs.add_parser(
        "evaluate", parents=[places], help="figures of a recognition graph, ours or a peer's"
    )
    verb.set_defaults(call=run)
    verb.add_argument("graph", type=Path)
    verb.add_argument("--out", type=Path, required=True, help="a json file")
    verb.add_argument("--picture", type=Path, help="a png of the calibration's curves")


def run(a: argparse.Namespace) -> None:
    figures = evaluate(a.graph, a.data, a.runs / "cache", threads=a.threads)
    a.out.parent.mkdir(parents=True, exist_ok=True)
    a.out.write_text(json.dumps(figures, indent=1) + "\n")
    if a.picture:
        draw_calibration(figures["calibration"], a.picture)
    print(json.dumps(figures["metrics"], indent=1))
