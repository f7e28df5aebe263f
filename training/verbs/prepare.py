"""python -m training prepare: a folder of people's photographs as a set of crops."""

import argparse
from pathlib import Path

from training.data.prepare import prepare
from training.verbs import Verbs

NAMED = 10  # people without a crop that are named


def add_to(verbs: Verbs, places: argparse.ArgumentParser) -> None:
    verb = verbs.add_parser(
        "prepare",
        parents=[places],
        help="detect and align a folder of people's photographs into a .rec",
    )
    verb.set_defaults(call=run)
    verb.add_argument("folder", type=Path, help="with a folder of photographs a person")
    verb.add_argument("out", type=Path, help="OUT.rec; .idx, property and a report come beside it")
    verb.add_argument("--size", type=int, default=112, help="the crops' side in px")


def run(a: argparse.Namespace) -> None:
    done = prepare(a.folder, a.out, threads=a.threads, size=a.size)
    rejected = sum(done.rejected.values())
    print(f"{a.out}: {done.kept} of {done.kept + rejected} photographs, {done.people} people")
    for reason, count in done.rejected.items():
        print(f"  {count} rejected: {reason}")
    for reason, count in done.skipped.items():
        print(f"  {count} skipped: {reason}")
    if done.without_crop:
        more = f" and {len(done.without_crop) - NAMED} more" * (len(done.without_crop) > NAMED)
        print(f"  without a crop: {', '.join(done.without_crop[:NAMED])}{more}")
    print(f"  {done.report} tells of each photograph")
