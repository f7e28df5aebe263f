"""A real server process, with the models that ship, on a store of its own."""

import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]
SERVE = (
    sys.executable,
    "-c",
    "from service.server import serve; from service.settings import read_settings as r; serve(r())",
)
POLL_S = 0.02  # between questions, so that they leave the processor to who is to answer
_RUNNING = re.compile(rb"Uvicorn running on http://\S+?:(\d+) ")


@contextmanager
def serving(
    data: Path, log: Path, *, command: Sequence[str] = SERVE, **settings: object
) -> Iterator[str]:
    """The address of a server that is ready. settings: by field, `workers=2` for MIEN_WORKERS."""
    with served(data, log, command=command, **settings) as (address, _):
        yield address


@contextmanager
def served(
    data: Path, log: Path, *, command: Sequence[str] = SERVE, **settings: object
) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """As `serving`, with the server's process."""
    given = {"data": data, "port": 0, **settings}
    environment = {
        **{k: v for k, v in os.environ.items() if not k.startswith("MIEN_")},
        **{f"MIEN_{name.upper()}": str(value) for name, value in given.items()},
    }
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=output, stderr=output)
    try:
        while (address := address_in(log)) is None or not is_ready(address):
            assert process.poll() is None, log.read_text(encoding="utf-8", errors="replace")
            time.sleep(POLL_S)
        yield address, process
    finally:
        process.terminate()
        process.wait()  # the test's own timeout is the limit


def is_ready(address: str) -> bool:
    """Whether /readyz says yes."""
    try:
        with urllib.request.urlopen(f"{address}/readyz", timeout=60) as answer:
            return bool(answer.status == 200)
    except OSError:  # refused, broken off, 503, or late
        return False


def address_in(log: Path) -> str | None:
    """The server's address on this machine, once its log names the port that the system chose."""
    found = _RUNNING.search(log.read_bytes())
    return None if found is None else f"http://127.0.0.1:{int(found[1])}"


@contextmanager
def address_of_nobody() -> Iterator[str]:
    """An address that refuses every connection: its port is taken, and nobody listens there."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}"
