"""How the commands fail: with a line on stderr and an exit status, never with a traceback."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import typer
from rich.console import Console
from rich.text import Text

from service.cli.door import Refused, Unable
from service.errors import MienError

err: Final = Console(stderr=True, highlight=False)


@contextmanager
def plain_errors() -> Iterator[None]:
    """What goes wrong becomes a line on stderr and exit status 2."""
    try:
        yield
    except (MienError, Refused, Unable, OSError) as error:
        complain(str(error))
    except ModuleNotFoundError as error:
        if error.name not in ("onnxruntime", "faiss"):
            raise
        complain(f"{error.name} is not installed: pip install 'mien[cpu]', or 'mien[gpu]'")
    else:
        return
    raise typer.Exit(2)


def complain(text: str) -> None:
    """Says on stderr what is wrong."""
    err.print(Text(f"mien: {text}"), soft_wrap=True)
