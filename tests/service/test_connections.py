"""service/connections.py: a real server on a port, and callers that take what they can."""

import asyncio
import json
import logging
import resource
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
import uvicorn

from service.api.envelope import CROWDED
from service.connections import (
    KEPT,
    OTHER_FILES,
    PLACES,
    Connection,
    Places,
    most_connections,
    require_connections,
)
from service.errors import SettingsError
from service.observe.metrics import REGISTRY

LONG_S = 3600.0  # what does not end within it is not ended by it
SHORT_S = 0.2
LARGE = bytes(16 * 1024 * 1024)  # more than the system takes of an answer that nobody reads
GET = b"GET %s HTTP/1.1\r\nHost: localhost\r\n\r\n"
Send = Callable[[dict[str, Any]], Awaitable[None]]


async def app(scope: dict[str, Any], receive: Callable[[], Awaitable[Any]], send: Send) -> None:
    """Answers with the limit that the server sees in force, /large with much, /held not at all."""
    if scope["path"] == "/held":
        while (await receive())["type"] != "http.disconnect":
            pass
        return
    said = json.dumps(scope["state"].get(CROWDED)).encode()
    body = LARGE if scope["path"] == "/large" else said
    length = str(len(body)).encode()
    head = {"status": 200, "headers": [(b"content-length", length)]}
    await send({"type": "http.response.start", **head})
    await send({"type": "http.response.body", "body": body})


@contextmanager
def server(places: Places) -> Iterator[tuple[str, int]]:
    """The address of a server with these places."""

    async def with_places(scope: dict[str, Any], receive: Any, send: Send) -> None:
        if scope["type"] == "lifespan":
            await receive()
            scope["state"][PLACES] = places
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
        else:
            await app(scope, receive, send)

    listening = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(with_places, http=Connection, ws="none", log_config=None, workers=1)
    running = uvicorn.Server(config)
    thread = threading.Thread(target=lambda: asyncio.run(running.serve([listening])))
    thread.start()
    try:
        yield listening.getsockname()
    finally:
        running.force_exit = running.should_exit = True
        thread.join()


@contextmanager
def connected(address: tuple[str, int]) -> Iterator[socket.socket]:
    with socket.create_connection(address, timeout=600) as connection:
        yield connection


def answer(connection: socket.socket, path: bytes = b"/") -> bytes:
    """The body of the answer to a request on a kept connection."""
    connection.sendall(GET % path)
    return read_answer(connection)


def read_answer(connection: socket.socket) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data:
        more = connection.recv(65536)
        assert more, data
        data += more
    head, _, body = data.partition(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
    whole = bytearray(body)
    while len(whole) < length:
        more = connection.recv(65536)
        assert more, len(whole)
        whole += more
    return bytes(whole)


def ended(connection: socket.socket) -> bytes:
    """What still came until the server ended the connection."""
    data = bytearray()
    try:
        while more := connection.recv(65536):
            data += more
    except ConnectionResetError:
        pass
    return bytes(data)


def count(reason: str) -> float:
    """Connections that were ended for that reason."""
    return REGISTRY.get_sample_value("mien_connections_ended_total", {"reason": reason}) or 0.0


def test_a_silent_connection_is_ended() -> None:
    before = count("head")
    with server(Places(100, SHORT_S, LONG_S)) as address, connected(address) as silent:
        assert ended(silent) == b""
    assert count("head") == before + 1


def test_a_head_that_comes_byte_by_byte_is_answered_with_408_in_its_time() -> None:
    """Each byte starts no time of its own."""
    with server(Places(100, SHORT_S, LONG_S)) as address, connected(address) as slow:
        slow.settimeout(0.01)
        said, dripped = b"", 0
        slow.sendall(b"GET / HTTP/1.1\r\nX-Long: ")
        while not said:
            dripped += 1
            try:
                slow.sendall(b"a")
                said = slow.recv(65536)
            except TimeoutError:
                continue
        assert said.startswith(b"HTTP/1.1 408 Request Timeout\r\n")
        problem = json.loads(said.partition(b"\r\n\r\n")[2])
        assert problem["type"] == "/problems/head-too-slow"
        assert "0.2 s" in problem["detail"]


def test_a_head_that_comes_slowly_after_an_answer_is_bounded_too() -> None:
    with server(Places(100, SHORT_S, LONG_S)) as address, connected(address) as kept:
        assert answer(kept) == b"null"
        kept.sendall(b"GET / HT")
        assert ended(kept).startswith(b"HTTP/1.1 408 ")


def test_a_body_that_comes_after_its_answer_does_not_hold_the_connection() -> None:
    with server(Places(100, SHORT_S, LONG_S)) as address, connected(address) as kept:
        kept.sendall(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n")
        assert read_answer(kept) == b"null"
        kept.settimeout(0.01)
        while not dripped_into_the_end(kept):
            pass


def dripped_into_the_end(connection: socket.socket) -> bool:
    """Send a byte more; whether the server has ended the connection."""
    try:
        connection.sendall(b"a")
        return connection.recv(100) == b""
    except TimeoutError:
        return False
    except ConnectionError:
        return True


def test_a_call_that_is_being_answered_is_not_ended_for_its_time() -> None:
    before = count("head")
    with server(Places(100, SHORT_S, LONG_S)) as address, connected(address) as held:
        held.sendall(GET % b"/held")
        with connected(address) as silent:
            ended(silent)
        assert count("head") == before + 1
        held.settimeout(0.05)
        with pytest.raises(TimeoutError):
            held.recv(1)


def test_who_does_not_read_an_answer_is_dropped_with_it() -> None:
    before = count("write")
    places = Places(100, LONG_S, SHORT_S)
    with server(places) as address, connected(address) as deaf:
        deaf.sendall(GET % b"/large")
        while count("write") == before:
            with connected(address) as other:
                answer(other)
        while places.open > 1:
            pass
        assert len(ended(deaf)) < len(LARGE)


def test_who_reads_slower_than_the_least_rate_is_dropped_too() -> None:
    before = count("write")
    with server(Places(100, LONG_S, SHORT_S)) as address, connected(address) as trickling:
        trickling.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        trickling.sendall(GET % b"/large")
        while count("write") == before:
            trickling.recv(1)


def test_a_large_answer_that_is_read_comes_whole() -> None:
    with server(Places(100, LONG_S, 60.0)) as address, connected(address) as reading:
        assert len(answer(reading, b"/large")) == len(LARGE)
        assert answer(reading) == b"null"


def test_silent_connections_give_way_to_who_asks() -> None:
    most = 2 * KEPT
    before = count("idle")
    with server(Places(most, LONG_S, LONG_S)) as address, ExitStack() as stack:
        silent = [stack.enter_context(connected(address)) for _ in range(3 * most)]
        with connected(address) as asking:
            assert answer(asking) == b"null"  # and is not of the last places either
        assert ended(silent[0]) == b""
    assert count("idle") > before


def test_probes_alone_are_let_in_on_the_last_places_and_nobody_beyond_them() -> None:
    most = 2 * KEPT
    before = count("full")
    places = Places(most, LONG_S, LONG_S)
    with server(places) as address, ExitStack() as stack:

        def hold(until: int) -> None:
            """One by one: who has not asked yet gives way."""
            for held in range(places.open + 1, until + 1):
                stack.enter_context(connected(address)).sendall(GET % b"/held")
                until_open(places, held)

        hold(most - KEPT)
        with connected(address) as probe:
            assert answer(probe) == str(most).encode()  # the application refuses what is no probe
        until_open(places, most - KEPT)
        hold(most)
        with connected(address) as beyond:
            assert ended(beyond) == b""
        assert count("full") == before + 1


def until_open(places: Places, count: int) -> None:
    """Return when so many are open and none of them waits for a request."""
    while places.open != count or places.waiting:
        threading.Event().wait(0.01)


def test_refusals_are_one_line_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    with server(Places(2 * KEPT, LONG_S, LONG_S)) as address, ExitStack() as stack:
        for _ in range(10 * KEPT):
            stack.enter_context(connected(address))
        with connected(address) as asking:
            answer(asking)
    lines = [line for line in caplog.records if "connections full" in line.getMessage()]
    assert len(lines) == 1


@pytest.mark.parametrize(
    "said", [b"\x16\x03\x01\r\n\r\n", b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"]
)
def test_what_is_not_http_is_a_problem(said: bytes) -> None:
    with server(Places(100, LONG_S, LONG_S)) as address, connected(address) as broken:
        broken.sendall(said)
        head, _, body = ended(broken).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 400 ")
        assert json.loads(body)["type"] == "/problems/request-refused"


@pytest.mark.parametrize("path", [b"/", b"/held"])
def test_a_body_that_breaks_off_into_nonsense_is_no_failure(
    path: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """Before its call was answered, and after."""
    with server(Places(100, LONG_S, LONG_S)) as address, connected(address) as broken:
        head = b"POST %s HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n" % path
        broken.sendall(head)
        if path == b"/":
            read_answer(broken)
        broken.sendall(b"nonsense\r\n")
        ended(broken)
    assert not [line for line in caplog.records if line.levelno >= logging.ERROR]


def test_an_upgrade_is_ignored_without_a_line(caplog: pytest.LogCaptureFixture) -> None:
    with server(Places(100, LONG_S, LONG_S)) as address, connected(address) as upgrading:
        upgrading.sendall(
            b"GET / HTTP/1.1\r\nHost: localhost\r\n"
            b"Connection: upgrade\r\nUpgrade: websocket\r\n\r\n"
        )
        assert read_answer(upgrading) == b"null"
    assert not [line for line in caplog.records if line.levelno >= logging.WARNING]


def test_connections_fit_under_the_limit_of_open_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, 1024))
    assert most_connections(0) == 1024 - OTHER_FILES
    assert most_connections(100) == 100
    require_connections(1024 - OTHER_FILES)
    with pytest.raises(SettingsError, match=r"1000 connections .* 1024 open files .* at most 768"):
        require_connections(1000)
    monkeypatch.setattr(resource, "getrlimit", lambda _: (64, 64))
    with pytest.raises(SettingsError, match=r"64 open files .* at least 272$"):
        require_connections(0)
