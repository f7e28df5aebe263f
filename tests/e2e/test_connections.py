"""Callers that take connections of a real server: it goes on, says so once, and is well again."""

import http.client
import json
import resource
import socket
import urllib.request
from contextlib import ExitStack, closing
from pathlib import Path

from tests.e2e.server import served
from tests.e2e.test_faults import until


def opened(address: str) -> socket.socket:
    host, port = address.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=600)


def status_of(address: str, path: str) -> tuple[int, str, str | None]:
    """Status, problem and Connection header of the answer on a connection of its own."""
    host = address.removeprefix("http://")
    with closing(http.client.HTTPConnection(host, timeout=600)) as connection:
        connection.request("GET", path)
        with connection.getresponse() as answer:
            body = answer.read()
            kind = json.loads(body).get("type", "") if path != "/metrics" else ""
            return answer.status, kind.rpartition("/")[2], answer.headers["Connection"]


def test_silent_sockets_refuse_nobody_and_are_ended(
    tmp_path: Path, networks: dict[str, object]
) -> None:
    given = {"max_connections": 16, "head_timeout_s": 5, **networks}
    with (
        served(tmp_path / "data", tmp_path / "log", **given) as (address, _),
        ExitStack() as stack,
    ):
        silent = [stack.enter_context(opened(address)) for _ in range(100)]
        for path in ("/models", "/healthz", "/readyz", "/metrics"):
            assert status_of(address, path)[0] == 200
        for one in silent:
            assert ended(one)
    assert (tmp_path / "log").read_text(encoding="utf-8").count("connections full") == 1


def ended(connection: socket.socket) -> bool:
    try:
        return connection.recv(100) == b""
    except ConnectionResetError:
        return True


def test_while_nearly_all_connections_are_in_use_probes_alone_are_answered(
    tmp_path: Path, networks: dict[str, object]
) -> None:
    """Each of the others waits for a body that does not come."""
    given = {"max_connections": 16, **networks}
    with (
        served(tmp_path / "data", tmp_path / "log", **given) as (address, _),
        ExitStack() as stack,
    ):
        for _ in range(8):
            held = stack.enter_context(opened(address))
            held.sendall(
                b"POST /detect HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\n"
                b"Content-Type: image/png\r\nContent-Length: 1000\r\n\r\n"
            )
            assert held.recv(100).startswith(b"HTTP/1.1 100 ")
        assert status_of(address, "/models") == (503, "connections-full", "close")
        for path in ("/healthz", "/readyz", "/metrics"):
            assert status_of(address, path)[0] == 200
        stack.close()
        until(lambda: status_of(address, "/models")[0] == 200)


def test_out_of_descriptors_is_one_line_and_heals(
    tmp_path: Path, networks: dict[str, object]
) -> None:
    log = tmp_path / "log"
    with served(tmp_path / "data", log, **networks) as (address, process), ExitStack() as stack:
        _, hard = resource.prlimit(process.pid, resource.RLIMIT_NOFILE)
        used = max(int(file.name) for file in Path(f"/proc/{process.pid}/fd").iterdir())
        resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (used + 10, hard))
        for _ in range(100):
            stack.enter_context(opened(address))
        until(lambda: "out of file descriptors" in log.read_text(encoding="utf-8"))
        stack.close()
        with urllib.request.urlopen(f"{address}/healthz", timeout=600) as answer:
            assert answer.status == 200
        resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (hard, hard))
    lines = log.read_text(encoding="utf-8").splitlines()
    [line] = [json.loads(one) for one in lines if "out of file descriptors" in one]
    assert (line["errno"], line["limit"]) == ("EMFILE", used + 10)
    assert line["connections"] <= 10
    assert len(lines) < 100
    assert not any("Traceback" in one or "a task failed" in one for one in lines)
