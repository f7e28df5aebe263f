"""The log of a test's own process, put back as it was."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

LOGGERS = ("", "mien", "uvicorn", "uvicorn.error", "uvicorn.access", "python_multipart")


@contextmanager
def restored_logging() -> Iterator[None]:
    """In it loggers are those of a fresh process, with pytest's own handlers; after it handlers,
    levels and ways up are what they were before: other tests start servers that change them."""
    loggers = [logging.getLogger(name) for name in LOGGERS]
    before = [(list(one.handlers), one.level, one.propagate) for one in loggers]
    root, *others = loggers
    root.setLevel(logging.WARNING)
    for logger in others:
        logger.handlers, logger.propagate = [], True
        logger.setLevel(logging.NOTSET)
    try:
        yield
    finally:
        for logger, (handlers, level, propagate) in zip(loggers, before, strict=True):
            logger.handlers, logger.propagate = handlers, propagate
            logger.setLevel(level)
        logging.captureWarnings(False)
