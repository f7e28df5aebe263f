"""What `python -m training` does: a module a verb, each with add_to(verbs, places).

add_to adds the verb's parser to the subparsers `verbs`, with `places` (--data, --runs, --threads)
as a parent, and sets `call` to the function that takes the parsed arguments. A ValueError or
OSError of it is the user's to read: it ends the command with its text. Data that are absent end it
with exit code 2, Ctrl-C with 130.
"""

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

Verbs = Any  # argparse gives the type of its subparsers no public name
DOCS = Path(__file__).resolve().parents[2] / "docs"


@contextmanager
def running(threads: int) -> Iterator[None]:
    """What a verb that trains does its work in: PyTorch's threads, and numbers too small to matter
    taken as zero, which they cost several times the time of."""
    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


def counted(text: str) -> int:
    """A whole number from 1 on, for argparse, which says what else it was given."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1 on")
    return int(text)


def plan(verb: argparse.ArgumentParser, page: str, *, seeds: int, **size: int) -> None:
    """The arguments of an experiment: how many seeds, how long a run (`steps` or `epochs`, by its
    name), its page below docs."""
    [(name, usual)] = size.items()
    verb.add_argument("--seeds", type=counted, default=seeds, help=f"{seeds} unless given")
    verb.add_argument(
        f"--{name}", type=counted, default=usual, help=f"a run's; {usual} unless given"
    )
    verb.add_argument("--page", action="store_true", help="write the page alone; train nothing")
    verb.add_argument(
        "--out",
        type=Path,
        help=f"docs/{page}, unless --{name} is another or --seeds are fewer",
    )
    verb.set_defaults(whole=(page, seeds, name, usual))


def places_of(a: argparse.Namespace, experiment: str) -> tuple[Path, Path]:
    """The folder of the experiment's runs and its page, of what `plan` took."""
    page, seeds, name, usual = a.whole
    size = getattr(a, name)
    folder = a.runs / experiment / f"{name}-{size}"
    whole = size == usual and a.seeds >= seeds
    return folder, a.out or (DOCS / page if whole else folder / page)
