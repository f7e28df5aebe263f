"""The log of a test's own process, put back as it was."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

LOGGERS = ("", "mien", "uvicorn")


@contextmanager
def restored_logging() -> Iterator[None]:
    """After it handlers and levels are what they were before."""
    root = logging.getLogger()
    handlers = list(root.handlers)
    levels = {name: logging.getLogger(name).level for name in LOGGERS}
    try:
        yield
    finally:
        root.handlers = handlers
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
        logging.captureWarnings(False)
