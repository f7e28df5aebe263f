"""Who reads the records of requests: metrics, log, and a collector of traces where one is named."""

from collections.abc import Callable
from dataclasses import dataclass

from service.errors import SettingsError
from service.observe import logs, metrics
from service.observe.record import Reader


@dataclass(frozen=True)
class Watch:
    """readers: each reads a record when its request is over. recorded: whether traces that begin
    here are. close: when there are no more requests."""

    readers: tuple[Reader, ...]
    recorded: bool
    close: Callable[[], None]


def open_watch(collector: str | None, *, version: str) -> Watch:
    """The readers. collector: its address. Raises SettingsError where its libraries are missing."""
    if collector is None:
        return Watch((metrics.count, logs.write), recorded=False, close=lambda: None)
    try:
        from service.observe.spans import Spans  # its libraries are an extra
    except ModuleNotFoundError as error:
        reason = f"{error.name} is not installed: pip install 'mien[otel]'"
        raise SettingsError("MIEN_OTLP_ENDPOINT", reason) from error
    spans = Spans(collector, version=version)
    return Watch((metrics.count, logs.write, spans.send), recorded=True, close=spans.close)
