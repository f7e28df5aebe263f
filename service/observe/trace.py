"""Which trace a request belongs to: W3C Trace Context (w3.org/TR/trace-context), read and written.

A `traceparent` that is not what the recommendation asks for begins a new trace; a `tracestate` that
is not is left out.
"""

import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

SAMPLED: Final = 0x01  # the caller, or we, record the trace
RANDOM: Final = 0x02  # the trace's id is random (level 2)
_MOST_MEMBERS: Final = 32
_PARENT: Final = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_MEMBER: Final = re.compile(
    r"(?:[a-z][a-z0-9_*/-]{0,255}|[a-z0-9][a-z0-9_*/-]{0,240}@[a-z][a-z0-9_*/-]{0,13})"
    r"=[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e]"
)


@dataclass(frozen=True)
class Trace:
    """A request's place in a trace: ids in lower-case hexadecimal digits, 32 and 16 of them.

    span_id: the request's own; parent_id: the caller's, None where the trace begins here. state:
    the caller's tracestate, handed on as it is.
    """

    trace_id: str
    span_id: str
    parent_id: str | None
    flags: int
    state: str

    @property
    def sampled(self) -> bool:
        """Whether the trace is recorded."""
        return bool(self.flags & SAMPLED)

    def headers(self) -> dict[str, str]:
        """The headers that tell it, of version 00."""
        parent = f"00-{self.trace_id}-{self.span_id}-{self.flags:02x}"
        return {"traceparent": parent, **({"tracestate": self.state} if self.state else {})}


def trace_of(parents: Sequence[str], states: Sequence[str], *, recorded: bool) -> Trace:
    """The trace that the headers of these values tell, or a new one, with a new span.

    parents, states: the values of each `traceparent` and `tracestate`. recorded: whether a trace
    that begins here is recorded; one that comes in brings the answer along.
    """
    parent = _PARENT.fullmatch(parents[0]) if len(parents) == 1 else None
    span_id = secrets.token_hex(8)
    if parent is None or not _is_valid(*parent.groups()):
        flags = RANDOM | (SAMPLED if recorded else 0)
        return Trace(secrets.token_hex(16), span_id, None, flags, "")
    _, trace_id, parent_id, flags_hex, _ = parent.groups()
    known_flags = int(flags_hex, 16) & (SAMPLED | RANDOM)
    return Trace(trace_id, span_id, parent_id, known_flags, _state(states))


def _is_valid(version: str, trace_id: str, parent_id: str, _flags: str, rest: str | None) -> bool:
    """Later versions may say more at the end; version 00 says no more, and ff is none."""
    known = version != "ff" and not (version == "00" and rest)
    return known and bool(trace_id.strip("0") and parent_id.strip("0"))


def _state(states: Sequence[str]) -> str:
    members = [member.strip(" \t") for state in states for member in state.split(",")]
    members = [member for member in members if member]
    keys = {member.partition("=")[0] for member in members}
    well_formed = all(map(_MEMBER.fullmatch, members)) and len(keys) == len(members)
    return ",".join(members) if well_formed and len(members) <= _MOST_MEMBERS else ""
