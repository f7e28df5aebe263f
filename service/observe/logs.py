"""The log, structlog's home: one line a request, and the service's own events, on stderr.

`log` writes through the standard library's logging, as uvicorn and all others do, so that what they
say has the same form and goes the same way. Nothing that tells of a person is in a line: a record
has nothing of the kind, and of an exception its type and its way through the code are told, never
its text, which may quote what was sent.
"""

import logging
import sys
import traceback
from collections import Counter
from time import monotonic
from typing import Any, Final, Literal, TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from service.observe.record import Record

Form = Literal["auto", "json", "console"]
_fields: Final = structlog.stdlib.ExtraAdder()
_ORDER: Final = ("time", "level", "event")
_MOST_CAUSES: Final = 10
_MALFORMED: Final = "Invalid HTTP request"  # how uvicorn's line about one begins

log: Final = structlog.wrap_logger(
    logging.getLogger("mien"),
    wrapper_class=structlog.stdlib.BoundLogger,
    processors=[structlog.stdlib.filter_by_level, structlog.stdlib.render_to_log_kwargs],
)


class Throttle:
    """Lets one line of a kind pass per `every_s`, so that no caller can fill the log with it."""

    def __init__(self, every_s: float = 60.0) -> None:
        self._every_s = every_s
        self._passed_s: float | None = None
        self._suppressed = 0

    def suppressed(self) -> int | None:
        """How many lines were held back since the last one passed; None: hold this one back."""
        now_s = monotonic()
        if self._passed_s is not None and now_s - self._passed_s < self._every_s:
            self._suppressed += 1
            return None
        count, self._suppressed, self._passed_s = self._suppressed, 0, now_s
        return count


class _MalformedRequests(logging.Filter):
    """Throttles uvicorn's line about a request that is not HTTP, which any stranger can cause."""

    def __init__(self) -> None:
        super().__init__()
        self._throttle = Throttle()

    def filter(self, record: logging.LogRecord) -> bool:
        if not str(record.msg).startswith(_MALFORMED):
            return True
        suppressed = self._throttle.suppressed()
        if suppressed:
            record.msg = f"{record.msg} ({suppressed} more like it since the last line)"
        return suppressed is not None


def configure(form: Form) -> None:
    """Has this process log in that form; auto is console on a terminal and json elsewhere.

    json: a line is one JSON object with time (UTC), level and event first.
    """
    console = form == "console" or (form == "auto" and sys.stderr.isatty())
    handler = _Stderr()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[
                structlog.stdlib.add_log_level,
                _with_own_fields,
                structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
            ],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                _without_texts,
                _for_people() if console else structlog.processors.JSONRenderer(ensure_ascii=False),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.WARNING)
    for name in ("mien", "uvicorn"):
        logging.getLogger(name).setLevel(logging.INFO)
    server = logging.getLogger("uvicorn.error")
    for filtered in [one for one in server.filters if isinstance(one, _MalformedRequests)]:
        server.removeFilter(filtered)
    server.addFilter(_MalformedRequests())
    # What is wrong with a form is told to its caller, and in the line of the request.
    logging.getLogger("python_multipart").setLevel(logging.ERROR)
    logging.captureWarnings(True)


def write(record: Record) -> None:
    """The line of a request that is over."""
    stages = record.stages
    line: dict[str, Any] = {
        "request_id": record.request_id,
        "trace_id": record.trace.trace_id,
        "method": record.method,
        "route": record.route,
        "status": record.status,
        "ms": round(record.seconds * 1e3, 3),
    }
    if record.key is not None:
        line["key"] = record.key
    if record.problem is not None:
        line["problem"] = record.problem
    if stages.images or stages.spans:
        line |= {
            "stages": stages.spent_ms(),
            "images": len(stages.images),
            "faces": sum(len(scores) for scores in stages.images if scores is not None),
            "decisions": dict(sorted(Counter(stages.decisions).items())),
        }
    log.info("request", **line)


class _Stderr(logging.StreamHandler[TextIO]):
    """Writes to what stderr is at the moment."""

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr
        super().emit(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """A line that cannot be written is lost: logging would show all that it is about."""


def _with_own_fields(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    """The entry with its fields, if it is our own; what else others hand over may be anything."""
    return _fields(logger, method, event) if event["_record"].name == log.name else event


def _without_texts(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    """The entry, time and level first, with its exception told by types and places."""
    failure = _failure(event.pop("exc_info", None))
    event.pop("stack_info", None)
    if failure is not None:
        event["exception"] = _told(failure)
    first = {name: event.pop(name) for name in _ORDER if name in event}
    return {**first, **event}


def _failure(given: object) -> BaseException | None:
    if isinstance(given, tuple):
        return given[1] if isinstance(given[1], BaseException) else None
    return given if isinstance(given, BaseException) else sys.exc_info()[1] if given else None


def _told(failure: BaseException) -> str:
    """The exception and those that it came from, latest first: their types and where they were."""
    places: list[str] = []
    at: BaseException | None = failure
    for _ in range(_MOST_CAUSES):
        if at is None:
            break
        places += [f"{type(at).__qualname__}\n", *traceback.format_tb(at.__traceback__)]
        at = at.__cause__ or (None if at.__suppress_context__ else at.__context__)
    return "".join(places).rstrip()


def _for_people() -> Processor:
    return structlog.dev.ConsoleRenderer(
        colors=sys.stderr.isatty(),
        sort_keys=False,
        timestamp_key="time",
        exception_formatter=structlog.dev.plain_traceback,
    )
