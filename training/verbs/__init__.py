"""What `python -m training` does: a module a verb, each with add_to(verbs, places).

add_to adds the verb's parser to the subparsers `verbs`, with `places` (--data, --runs, --threads)
as a parent, and sets `call` to the function that takes the parsed arguments. A ValueError or
OSError of it is the user's to read: it ends the command with its text.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from training.recipes import DataAbsent

Verbs = Any  # argparse gives the type of its subparsers no public name


@contextmanager
def running(threads: int) -> Iterator[None]:
    """What a verb that trains does its work in.

    PyTorch's threads, and numbers too small to matter taken as zero, which they cost several times
    the time of. Data that are absent end the command with exit code 2, Ctrl-C with 130."""
    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
    try:
        yield
    except DataAbsent as absent:
        print(f"python -m training: {absent}", file=sys.stderr)
        raise SystemExit(2) from absent
    except KeyboardInterrupt as stopped:
        print(f"\nstopped: {stopped}", file=sys.stderr)
        raise SystemExit(130) from stopped
    finally:
        torch.set_flush_denormal(False)
