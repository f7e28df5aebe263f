"""Bodies as they arrive: within their limits while they are read, never after.

What is too long is counted and thrown away as it comes, so that no call holds more memory than its
limits. All bodies together have one budget, of which a caller may hold a share (shares.py). What is
refused is not read on; the server throws the rest away, so that the caller sees the answer and not
a broken connection. What comes too slowly is not waited for.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect

from service.api.problems import shown
from service.api.shares import Held, Shared
from service.api.visit import caller_of
from service.errors import (
    BodyBroken,
    BodyCompressed,
    BodyStalled,
    BodyTooLarge,
    BodyTooSlow,
    FieldInvalid,
)

LARGEST_FIELD_BYTES: Final = 65_536
_FORM: Final = "multipart/form-data"
_GZIP: Final = b"\x1f\x8b"


@dataclass(frozen=True)
class Limits:
    """Limits of a call's body. images: how many; body_timeout_s: from first byte to last."""

    image_bytes: int
    body_bytes: int
    images: int
    body_timeout_s: float


@dataclass(frozen=True)
class Intake:
    """Limits of all bodies together: the application's `state.intake`. buffered: their bytes;
    least_bytes: that come of each within each pause_s, until its end."""

    buffered: Shared
    least_bytes: int = 10 * 1024
    pause_s: float = 10.0


@dataclass
class Part:
    """A part of a form. size_bytes: all that came of it; data: no more of it than was allowed."""

    name: str
    allowed_bytes: int
    data: bytearray = field(default_factory=bytearray)
    size_bytes: int = 0

    def add(self, piece: bytes) -> None:
        self.size_bytes += len(piece)
        self.data += piece[: max(0, self.allowed_bytes - len(self.data))]


def media_type(request: Request) -> tuple[str, dict[str, str]]:
    """The body's media type in lower case, and its parameters; ("", {}) without one."""
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    return kind.decode("latin-1"), {
        name.decode("latin-1").lower(): value.decode("latin-1") for name, value in options.items()
    }


def declared_bytes(request: Request) -> int:
    """What Content-Length says, 0 where it says nothing."""
    declared = request.headers.get("content-length", "")
    return int(declared[:18]) if declared.isdecimal() else 0


async def read_bytes(request: Request, limits: Limits, limit_bytes: int) -> bytes:
    """The whole body. Raises BodyTooLarge over limit_bytes, BodyTooSlow."""
    body = bytearray()
    await _read(request, limits, limit_bytes, body.extend)
    return bytes(body)


async def read_parts(
    request: Request, limits: Limits, admit: Callable[[str], int], boundary: str
) -> list[Part]:
    """The parts of a multipart form, in order.

    admit: called with each part's name as it begins; how many of its bytes to keep, or an error.
    Raises BodyBroken, BodyTooLarge, BodyTooSlow, FieldInvalid for a part without a readable name.
    """
    form = _Form(admit)
    try:
        parser = MultipartParser(boundary.encode("latin-1"), form.callbacks())
        await _read(request, limits, limits.body_bytes, parser.write)
    except FormParserError as error:
        raise BodyBroken(_FORM, str(shown(str(error)))) from error
    if not form.ended:
        raise BodyBroken(_FORM, "it stops before its closing boundary")
    return form.parts


async def _read(
    request: Request, limits: Limits, limit_bytes: int, take: Callable[[bytes], object]
) -> None:
    encoding = request.headers.get("content-encoding", "").strip().lower()
    if encoding not in ("", "identity"):
        raise BodyCompressed(str(shown(encoding)))
    if (declared := declared_bytes(request)) > limit_bytes:
        raise BodyTooLarge(limit_bytes)
    intake: Intake = request.app.state.intake
    held = request.state.held = Held(intake.buffered, caller_of(request))
    held.require(declared)
    clock = asyncio.get_running_loop().time
    end_s = clock() + limits.body_timeout_s
    pause_end_s, in_pause = clock() + intake.pause_s, 0  # bytes that came since it began
    size_bytes, more = 0, True
    try:
        async with asyncio.timeout_at(min(end_s, pause_end_s)) as until:
            while more:
                message = await request.receive()
                if message["type"] == "http.disconnect":
                    raise ClientDisconnect
                chunk, more = message.get("body", b""), message.get("more_body", False)
                if size_bytes == 0 and chunk.startswith(_GZIP):
                    raise BodyCompressed("gzip")
                size_bytes += len(chunk)
                if size_bytes > limit_bytes:
                    raise BodyTooLarge(limit_bytes)
                if chunk:
                    held.add(len(chunk))
                take(chunk)
                in_pause += len(chunk)
                if in_pause >= intake.least_bytes:
                    pause_end_s, in_pause = clock() + intake.pause_s, 0
                    until.reschedule(min(end_s, pause_end_s))
    except TimeoutError as error:
        if pause_end_s < end_s:
            raise BodyStalled(in_pause, intake.least_bytes, intake.pause_s) from error
        raise BodyTooSlow(limits.body_timeout_s) from error


def release_body(request: Request) -> None:
    """The request is over: its body's bytes count no more, unless a place in line has them."""
    if (held := take_over_body(request)) is not None:
        held.release()


def take_over_body(request: Request) -> Held | None:
    """The count of the body's bytes, for who releases it; None where there is none."""
    held: Held | None = getattr(request.state, "held", None)
    request.state.held = None
    return held


class _Form:
    """What the parser tells, part by part."""

    def __init__(self, admit: Callable[[str], int]) -> None:
        self.parts: list[Part] = []
        self.ended = False
        self._admit = admit
        self._header = (bytearray(), bytearray())
        self._disposition = ""

    def callbacks(self) -> Any:  # the library names its type only for type checkers
        return {
            "on_part_begin": self._begin,
            "on_header_field": lambda data, start, end: self._header[0].extend(data[start:end]),
            "on_header_value": lambda data, start, end: self._header[1].extend(data[start:end]),
            "on_header_end": self._end_header,
            "on_headers_finished": self._open_part,
            "on_part_data": lambda data, start, end: self.parts[-1].add(data[start:end]),
            "on_end": self._end,
        }

    def _begin(self) -> None:
        self._disposition = ""

    def _end_header(self) -> None:
        name, value = (bytes(side).decode("latin-1") for side in self._header)
        self._header = (bytearray(), bytearray())
        if name.strip().lower() == "content-disposition":
            self._disposition = value

    def _open_part(self) -> None:
        kind, options = parse_options_header(self._disposition)
        if kind != b"form-data" or b"name" not in options:
            raise BodyBroken(_FORM, "a part has no Content-Disposition: form-data with a name")
        try:
            name = options[b"name"].decode("utf-8")
        except UnicodeDecodeError as error:
            value = shown(options[b"name"].decode("latin-1"))
            raise FieldInvalid("name", value, "UTF-8 text") from error
        self.parts.append(Part(name, self._admit(name)))

    def _end(self) -> None:
        self.ended = True
