"""What a connection may take of the service: a place, time for a request's head, time to read.

uvicorn's own do not do: `limit_concurrency` acts once a head has come and refuses probes too,
and `timeout_keep_alive` begins with the first answer, so that a connection that is silent, that
sends its head byte by byte or that does not read its answer would be held for ever.
"""

import asyncio
import fcntl
import resource
import struct
import sys
import termios
from dataclasses import dataclass, field
from typing import Any, Final

import h11
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import STATUS_PHRASES, H11Protocol
from uvicorn.server import ServerState

from service.api.envelope import CROWDED
from service.api.problems import HEAD_TOO_SLOW, MEDIA_TYPE, REQUEST_REFUSED, Kind, problem_bytes
from service.errors import SettingsError
from service.observe import metrics
from service.observe.logs import Throttle, log
from service.settings import LEAST_CONNECTIONS

PLACES: Final = "places"  # the key of a Places in the state of the application's lifespan
KEPT: Final = 8  # the last connections, on which probes alone are answered
# Of the limit of open files, for all else: the store, models and logs take some 20, and in one turn
# of the event loop `BACKLOG` connections may come that are over the limit.
OTHER_FILES: Final = 256
BACKLOG: Final = 128
MOST_BY_DEFAULT: Final = 4096  # bounds their memory where a million files may be open
LEAST_READ_BYTES_S: Final = 1024


@dataclass
class Places:
    """The connections of this process. most: above it none is let in; head_s, write_s: seconds for
    a request's head, and in which some of an answer must have been read.

    open: how many there are; waiting: those of which a request is awaited, the longest first.
    """

    most: int
    head_s: float
    write_s: float
    open: int = 0
    waiting: "dict[Connection, None]" = field(default_factory=dict)
    _lines: Throttle = field(default_factory=Throttle)

    def ended(self, reason: str) -> None:
        """Count a connection that was ended; what refuses callers is in the log too."""
        metrics.connection_ended(reason)
        if reason in ("full", "idle") and (suppressed := self._lines.suppressed()) is not None:
            places = {"open": self.open, "limit": self.most}
            log.warning("connections full", ended=reason, **places, suppressed=suppressed)


def most_connections(asked: int) -> int:
    """Connections that this process may hold. asked: MIEN_MAX_CONNECTIONS, 0 for as many as fit
    under the limit of open files, and at most MOST_BY_DEFAULT."""
    return asked or max(LEAST_CONNECTIONS, min(MOST_BY_DEFAULT, _file_limit() - OTHER_FILES))


def require_connections(asked: int) -> None:
    """Raise SettingsError if so many connections do not fit under the limit of open files."""
    most, files = most_connections(asked), _file_limit()
    if most + OTHER_FILES > files:
        reason = (
            f"{most} connections do not fit under the limit of {files} open files (ulimit -n), of "
            f"which {OTHER_FILES} are kept for all else: raise that limit to at least "
            f"{most + OTHER_FILES}, or set MIEN_MAX_CONNECTIONS to at most "
            f"{files - OTHER_FILES}"
        )
        if files - OTHER_FILES < LEAST_CONNECTIONS:
            reason = reason.partition(", or set")[0]
        raise SettingsError("MIEN_MAX_CONNECTIONS", reason)


def _file_limit() -> int:
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return sys.maxsize if files == resource.RLIM_INFINITY else files


def raise_file_limit() -> None:
    """Raise the limit of open files as far as this process may: the usual 1024 is for select()."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError):  # macOS has a lower one than it names
        return


class Connection(H11Protocol):
    """A connection with a place and its times. Upgrades are ignored, as HTTP allows."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._places: Places = app_state[PLACES]
        self._among_last = False
        self._head_timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None
        self._unread_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        places = self._places
        if len(self.connections) >= places.most - KEPT and places.waiting:
            next(iter(places.waiting)).end("idle")
        if len(self.connections) >= places.most:
            self.transport = transport
            transport.abort()
            places.ended("full")
            return
        super().connection_made(transport)
        # So that writing is paused while anything is unread, and the timer holds for all of it.
        transport.set_write_buffer_limits(high=0)
        self._among_last = len(self.connections) > places.most - KEPT
        self._count()
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._count()
        self._places.waiting.pop(self, None)
        for timer in (self._head_timer, self._write_timer):
            if timer is not None:
                timer.cancel()

    def end(self, reason: str) -> None:
        """End the connection now, whatever is under way on it, and give up its place."""
        self.connections.discard(self)
        self._places.waiting.pop(self, None)
        self.transport.abort()
        self._places.ended(reason)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._await_head()

    def handle_events(self) -> None:
        if self._among_last:
            crowded = len(self.connections) > self._places.most - KEPT
            self.app_state = {**self.app_state, CROWDED: self._places.most if crowded else None}
        super().handle_events()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._note_waiting()  # uvicorn's timer ends it if it stays silent now

    def pause_writing(self) -> None:
        super().pause_writing()
        self._places.waiting.pop(self, None)
        self._unread_bytes = self._unread()
        self._write_timer = self.loop.call_later(self._places.write_s, self._look_at_reader)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None
        self._note_waiting()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is not HTTP with a problem, or end it where an answer has begun already."""
        self._refuse(REQUEST_REFUSED, "the request is not well-formed HTTP")

    def _should_upgrade(self) -> bool:
        return False

    def _awaits_request(self) -> bool:
        """True if the next of the client's bytes is of no request that is being answered: of the
        next one's head, or of a body that comes after its answer has gone."""
        late = self.conn.our_state is h11.DONE and self.conn.their_state is h11.SEND_BODY
        return self.conn.their_state is h11.IDLE or late

    def _note_waiting(self) -> bool:
        """True if a request is awaited, and nothing of an answer is unread."""
        waits = (
            self._awaits_request() and self._write_timer is None and self in self.connections
        ) and not self.transport.is_closing()
        if waits:
            self._places.waiting.setdefault(self)
        else:
            self._places.waiting.pop(self, None)
        return waits

    def _await_head(self) -> None:
        """Start the time for a request's head, or stop it if the head has come."""
        self._note_waiting()
        if self._awaits_request() and not self.transport.is_closing():
            if self._head_timer is None:
                self._head_timer = self.loop.call_later(self._places.head_s, self._head_is_late)
        elif self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _head_is_late(self) -> None:
        if self.transport.is_closing():
            return
        self._places.ended("head")
        if self.conn.their_state is h11.IDLE and self.conn.trailing_data[0]:
            detail = f"the request's head did not come within {self._places.head_s:g} s"
            self._refuse(HEAD_TOO_SLOW, detail)
        else:
            self.transport.close()

    def _refuse(self, kind: Kind, detail: str) -> None:
        """Answer with a problem and close; a call whose answer has not begun is given up."""
        self._places.waiting.pop(self, None)
        if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            self.transport.close()
            return
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        body = problem_bytes(kind, detail)
        headers = [
            ("Content-Type", MEDIA_TYPE),
            ("Content-Length", str(len(body))),
            ("Connection", "close"),
        ]
        reason = STATUS_PHRASES[kind.status]
        head = h11.Response(status_code=kind.status, headers=headers, reason=reason)
        for event in (head, h11.Data(data=body), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def _look_at_reader(self) -> None:
        """End the connection if too little was read since it was last looked at."""
        unread = self._unread()
        if self._unread_bytes - unread < LEAST_READ_BYTES_S * self._places.write_s:
            self.end("write")
            return
        self._unread_bytes = unread
        self._write_timer = self.loop.call_later(self._places.write_s, self._look_at_reader)

    def _unread(self) -> int:
        """Bytes that the client has not acknowledged: here and in the system's own buffer, which
        takes more of them in steps of a megabyte, so that ours alone shows no slow reader."""
        held = self.transport.get_write_buffer_size()
        try:
            sock = self.transport.get_extra_info("socket")
            of_system = fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4))
        except OSError:  # it is closed, or not of a system that tells
            return held
        return held + int(struct.unpack("i", of_system)[0])

    def _count(self) -> None:
        self._places.open = len(self.connections)
        metrics.connections_are(self._places.open)
