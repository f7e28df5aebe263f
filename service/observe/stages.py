"""How long each stage of a call took: one record, which whoever wants to know reads."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

STAGES: Final = (
    *("decode", "detect", "align", "embed", "expression", "attributes"),
    *("search", "decide", "store"),
)


class Stages:
    """The stage times of one call, from its making on; threads may measure at the same time.

    A stage's time is the sum over the call's images, which are in work side by side: the sums may
    exceed the total, which is the time that went by.
    """

    def __init__(self) -> None:
        self._begun = time.perf_counter()
        self._spans: list[tuple[str, float]] = []  # append is atomic, += would not be

    @contextmanager
    def measure(self, stage: str) -> Iterator[None]:
        """Adds the time spent inside to the stage, also when it ends in an error."""
        begun = time.perf_counter()
        try:
            yield
        finally:
            self._spans.append((stage, time.perf_counter() - begun))

    def seconds(self) -> dict[str, float]:
        """The stages that were measured, in the order of the way, in seconds."""
        sums: dict[str, float] = {}
        for stage, seconds in list(self._spans):
            sums[stage] = sums.get(stage, 0.0) + seconds
        return {stage: sums[stage] for stage in STAGES if stage in sums}

    def timings_ms(self) -> dict[str, float]:
        """`seconds` in milliseconds, and `total`: since the record was made."""
        spent = {stage: round(seconds * 1e3, 3) for stage, seconds in self.seconds().items()}
        return {**spent, "total": round((time.perf_counter() - self._begun) * 1e3, 3)}
