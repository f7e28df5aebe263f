"""What one request was and what came of it: written at the edge, read once, when it is over.

Metrics, log and trace are readers of this record, and the answer's `timings_ms` is its `stages`. It
holds no image, no embedding and nothing that tells of a person: what is not in it cannot leave by
any reader.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from service.observe.stages import Stages
from service.observe.trace import Trace

METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
OTHER_METHOD: Final = "other"
UNKNOWN_ROUTE: Final = "unknown"
NOT_ANSWERED: Final = 499  # the client had gone


@dataclass
class Record:
    """A request. method: one of METHODS, or OTHER_METHOD.

    route: the template that the path matched (/galleries/{gallery}), never the path, which names
    people. problem: the slug of the problem that was the answer. key: the name of the key that
    made it, None without one that holds. stages: of a call with images, from the end of its upload
    on. begun_s, begun_ns: when the request came, on perf_counter's clock
    and since 1970; seconds: until the last of the answer was handed to the connection.
    """

    request_id: str
    method: str
    trace: Trace
    begun_s: float = field(default_factory=time.perf_counter)
    begun_ns: int = field(default_factory=time.time_ns)
    route: str = UNKNOWN_ROUTE
    status: int = NOT_ANSWERED
    problem: str | None = None
    key: str | None = None
    stages: Stages = field(default_factory=Stages)
    seconds: float = 0.0

    def end(self) -> None:
        """Notes that the request is over now."""
        self.seconds = time.perf_counter() - self.begun_s


Reader = Callable[[Record], None]


def method_of(method: str) -> str:
    """The method, where it is one of METHODS."""
    return method if method in METHODS else OTHER_METHOD
