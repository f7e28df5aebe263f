"""What happened on a call's way: one record, which whoever wants to know reads.

How long each stage took and what came of it, as plain numbers, of which none tells of whom. A call
that is over is stopped here: it begins no further stage.
"""

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

STAGES: Final = (
    *("decode", "detect", "align", "embed", "expression", "attributes"),
    *("search", "decide", "store"),
)


LAST: Final = "store"  # once begun it is waited for: half of it cannot be done


class Stopped(Exception):
    """The call is over, and nobody waits for what this stage would give."""


@dataclass(frozen=True)
class Span:
    """One piece of work of a stage: an image's decoding, a call's search.

    begun_s: on time.perf_counter's clock.
    """

    stage: str
    begun_s: float
    seconds: float


class Stages:
    """The record of one call, from its making on; threads may measure at the same time.

    A stage's time is the sum over the call's images, which are in work side by side: the sums may
    exceed the total, which is the time that went by.

    spans: the pieces, in the order of their ends. images: for each, the quality scores of its
    faces, None where it could not be used. decisions: those that were made. top1: of the faces that
    had candidates, what was decided and the best one's similarity.
    """

    def __init__(self) -> None:
        self._begun = time.perf_counter()
        self.spans: list[Span] = []  # append is atomic, += would not be
        self.images: list[tuple[float, ...] | None] = []
        self.decisions: list[str] = []
        self.top1: list[tuple[str, float]] = []
        self._lock = threading.Lock()
        self._stopped = self._storing = False

    def stop(self) -> bool:
        """Let no further stage begin; False if the last one has begun, which goes on."""
        with self._lock:
            self._stopped = not self._storing
            return self._stopped

    @contextmanager
    def measure(self, stage: str) -> Iterator[None]:
        """Adds the time spent inside to the stage, also when it ends in an error. Raises Stopped
        where the call is over."""
        with self._lock:
            if self._stopped:
                raise Stopped
            self._storing = self._storing or stage == LAST
        begun = time.perf_counter()
        try:
            yield
        finally:
            self.spans.append(Span(stage, begun, time.perf_counter() - begun))

    def saw(self, scores: Sequence[float] | None) -> None:
        """Notes an image by its faces' quality scores; None: it could not be used."""
        self.images.append(None if scores is None else tuple(scores))

    def decided(self, decision: str, top1: float | None = None) -> None:
        """Notes a decision, and the best candidate's similarity where it was one among people."""
        self.decisions.append(decision)
        if top1 is not None:
            self.top1.append((decision, top1))

    def seconds(self) -> dict[str, float]:
        """The stages that were measured, in the order of the way, in seconds."""
        sums: dict[str, float] = {}
        for span in list(self.spans):
            sums[span.stage] = sums.get(span.stage, 0.0) + span.seconds
        return {stage: sums[stage] for stage in STAGES if stage in sums}

    def spent_ms(self) -> dict[str, float]:
        """`seconds` in milliseconds, as they are told."""
        return {stage: round(seconds * 1e3, 3) for stage, seconds in self.seconds().items()}

    def timings_ms(self) -> dict[str, float]:
        """`spent_ms`, and `total`: since the record was made."""
        return {**self.spent_ms(), "total": round((time.perf_counter() - self._begun) * 1e3, 3)}
