"""Memory and time that hostile callers take of the service, and of another caller.

    python -m benchmarks.abuse [--seconds 60] [--only NAME ...]

A server process for each attack of ATTACKS. Another caller asks /identify over and over, alone and
then beside the attack: p50, p95 and p99 of both, and what answers it got. The server's resident
memory before, at its peak and after the attack, the connections that it held, and how long after
the attack the other caller's calls were as quick as before and no call was in progress. An attack
is a function and an entry in ATTACKS. Where keys are asked for, each of the two has a key.
Writes benchmarks/results/abuse.md.
"""

import argparse
import json
import os
import socket
import sqlite3
import struct
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import cv2
import httpx
import numpy as np

from benchmarks.hardware import hardware
from benchmarks.memory import resident_mib
from benchmarks.served import RESULTS, heading, photographs, serving

MIB: Final = 1 << 20
SAMPLE_S: Final = 0.05
LONGEST_RECOVERY_S: Final = 30.0
BACK: Final = 1.1  # of the memory before: what counts as given back
SCOPES: Final = ("--scope", "recognise", "--scope", "administer")


@dataclass(frozen=True)
class Target:
    """The server under attack, and when to stop attacking it. data: its folder."""

    host: str
    port: int
    headers: dict[str, str]
    over: threading.Event
    data: Path

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    def head(self, path: str, size_bytes: int, kind: str = "image/png") -> bytes:
        """The head of a POST, as bytes for a socket."""
        lines = [
            f"POST {path} HTTP/1.1",
            f"Host: {self.host}:{self.port}",
            f"Content-Type: {kind}",
            f"Content-Length: {size_bytes}",
            *(f"{name}: {value}" for name, value in self.headers.items()),
        ]
        return ("\r\n".join(lines) + "\r\n\r\n").encode()

    def connect(self) -> socket.socket:
        return socket.create_connection((self.host, self.port), timeout=30)


@dataclass(frozen=True)
class Attack:
    """run: attacks until the target's `over` is set. settings: of the server, beside the usual."""

    name: str
    about: str
    run: Callable[[Target], None]
    settings: dict[str, str] = field(default_factory=dict)


def flat_png(width: int, height: int) -> bytes:
    """A PNG of one color: many pixels in few bytes."""
    encoded: bytes = cv2.imencode(".png", np.full((height, width, 3), 200, np.uint8))[1].tobytes()
    return encoded


def form(parts: list[bytes], boundary: str = "attack") -> tuple[bytes, str]:
    """The body of a form with these images, and its content type."""
    head = b'Content-Disposition: form-data; name="image"; filename="x.png"\r\n\r\n'
    edge = f"--{boundary}\r\n".encode()
    body = b"".join(edge + head + part + b"\r\n" for part in parts)
    return body + f"--{boundary}--\r\n".encode(), f"multipart/form-data; boundary={boundary}"


# The attacks.


def large_images(target: Target) -> None:
    """One call after another, each of 32 flat images of 40 megapixels: some 4 MB."""
    body, kind = form([flat_png(8000, 5000)] * 32)
    while not target.over.is_set():
        post(target, "/detect", body, kind)


def small_images(target: Target) -> None:
    """Four connections, each with calls of 32 images of HD size."""
    body, kind = form([flat_png(1920, 1080)] * 32)

    def calls() -> None:
        while not target.over.is_set():
            post(target, "/detect", body, kind)

    side_by_side([calls] * 4)


def vanished_callers(target: Target) -> None:
    """25 callers send 16 MiB each and go, again and again."""
    body, kind = form([os.urandom(4 * MIB)] * 4)

    def call() -> None:
        while not target.over.is_set():
            try:
                with target.connect() as one:
                    one.sendall(target.head("/detect", len(body), kind) + body)
            except OSError:  # it did not want it
                time.sleep(SAMPLE_S)

    side_by_side([call] * 25)


def slow_bodies(target: Target) -> None:
    """70 sockets send half a byte per second each; one that is closed is opened again."""

    def drip() -> None:
        while not target.over.is_set():
            try:
                with target.connect() as one:
                    one.sendall(target.head("/detect", 10 * MIB))
                    while not target.over.wait(2):
                        one.sendall(b"x")
            except OSError:  # it was ended
                time.sleep(SAMPLE_S)

    side_by_side([drip] * 70)


def half_bodies(target: Target) -> None:
    """20 sockets send 19 MiB of 20, and then nothing."""
    most = bytes(MIB)

    def hold() -> None:
        while not target.over.is_set():
            try:
                with target.connect() as one:
                    one.sendall(target.head("/detect", 20 * MIB))
                    for _ in range(19):
                        one.sendall(most)
                    one.settimeout(1)
                    while not target.over.is_set():
                        try:
                            if not one.recv(65536):
                                break
                        except TimeoutError:
                            continue
            except OSError:
                time.sleep(SAMPLE_S)

    side_by_side([hold] * 20)


def broken_images(target: Target) -> None:
    """One call after another, each of 32 PNGs of 40 megapixels that end after half of them."""
    whole = flat_png(8000, 5000)
    body, kind = form([whole[: len(whole) // 2]] * 32)
    while not target.over.is_set():
        post(target, "/detect", body, kind)


def wide_tiles(target: Target) -> None:
    """One call after another, each of 32 TIFFs of 64 x 64 px whose tile is 46,000 px wide."""
    body, kind = form([wide_tile()] * 32)
    while not target.over.is_set():
        post(target, "/detect", body, kind)


def wide_tile() -> bytes:
    """A TIFF of few bytes that asks a decoder for a tile of 6 GB."""
    coded = zlib.compress(bytes(1 << 20), 9)
    long, short = 4, 3
    entries = [
        *((256, long, 64), (257, long, 64), (258, short, 8), (259, short, 8), (262, short, 1)),
        *((277, short, 1), (322, long, 46_000), (323, long, 46_000)),
    ]
    behind = 8 + 2 + 12 * (len(entries) + 2) + 4
    entries += [(324, long, behind), (325, long, len(coded))]
    table = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in entries)
    head = struct.pack("<2sHIH", b"II", 42, 8, len(entries))
    return head + table + bytes(4) + coded


def silent_sockets(target: Target) -> None:
    """1,000 sockets that send nothing; one that is closed is opened again."""

    def hold() -> None:
        held: list[socket.socket] = []
        while not target.over.is_set():
            try:
                held.append(target.connect())
            except OSError:
                target.over.wait(SAMPLE_S)
            if len(held) >= 100:
                target.over.wait(1)
                held = [one for one in held if not closed(one)]
        for one in held:
            one.close()

    side_by_side([hold] * 10)


def closed(one: socket.socket) -> bool:
    """True if the server has ended the connection; it is closed here then, too."""
    one.setblocking(False)
    try:
        ended = one.recv(1) == b""
    except BlockingIOError:
        return False
    except OSError:
        ended = True
    if ended:
        one.close()
    return ended


def unread_answers(target: Target) -> None:
    """50 callers ask for a long answer and read nothing of it."""

    def ask_only() -> None:
        request = f"GET /openapi.json HTTP/1.1\r\nHost: {target.host}:{target.port}\r\n\r\n"
        while not target.over.is_set():
            try:
                with target.connect() as one:
                    one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                    one.sendall(request.encode() * 20)
                    target.over.wait(5)
            except OSError:
                target.over.wait(SAMPLE_S)

    side_by_side([ask_only] * 50)


def locked_store(target: Target) -> None:
    """Another program keeps the gallery locked, while 24 callers change what is in it."""

    def write() -> None:
        with httpx.Client(base_url=target.url, headers=target.headers, timeout=60) as client:
            while not target.over.is_set():
                client.patch("/galleries/default", json={"metadata": {"changed": True}})

    path = target.data / "gallery.sqlite3"
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        side_by_side([write] * 24)
        other.execute("ROLLBACK")


def post(target: Target, path: str, body: bytes, kind: str) -> None:
    """A call whose answer is read and not looked at; given up when the attack is over."""
    with target.connect() as one:
        one.settimeout(0.5)
        try:
            one.sendall(target.head(path, len(body), kind) + body)
        except OSError:
            return
        while not target.over.is_set():
            try:
                if one.recv(65536):
                    return  # one answer a connection
                return
            except TimeoutError:
                continue
            except OSError:
                return


def side_by_side(works: list[Callable[[], None]]) -> None:
    threads = [threading.Thread(target=work, daemon=True) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


ATTACKS: Final = (
    Attack("large images", "one caller, calls of 32 flat PNGs of 40 Mpx", large_images),
    Attack("small images", "four connections, calls of 32 flat PNGs of HD size", small_images),
    Attack("vanished callers", "25 callers who send 16 MiB and go", vanished_callers),
    Attack("slow bodies", "70 sockets at half a byte per second", slow_bodies),
    Attack("broken images", "one caller, calls of 32 half-cut PNGs of 40 Mpx", broken_images),
    Attack("wide tiles", "one caller, calls of 32 TIFFs of 64 px that ask for 6 GB", wide_tiles),
    Attack("silent sockets", "1,000 sockets that send nothing", silent_sockets),
    Attack("unread answers", "50 callers who do not read their answers", unread_answers),
    Attack("locked store", "the store locked by another program, 24 writers", locked_store),
    Attack("half bodies", "20 sockets that stop after 19 of 20 MiB", half_bodies),
)


# The measurement.


class Watch:
    """Resident memory and connections of a process, sampled until it is left."""

    def __init__(self, process: int) -> None:
        self._process = process
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self.peak_mib = 0.0
        self.most_connections = 0

    def __enter__(self) -> "Watch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._over.wait(SAMPLE_S):
            self.peak_mib = max(self.peak_mib, resident_mib(self._process))
            self.most_connections = max(self.most_connections, connections(self._process))


def connections(process: int) -> int:
    """The sockets that a process has open, those that it listens on among them."""
    links = Path(f"/proc/{process}/fd")
    found = 0
    for link in list(links.iterdir()):
        try:
            found += os.readlink(link).startswith("socket:")
        except OSError:  # closed since
            continue
    return found


@dataclass
class Asked:
    """A good caller's calls: their times in ms, and how many had which status."""

    times_ms: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)

    def percentiles(self) -> list[float]:
        """p50, p95, p99 of the calls that were answered with 200."""
        return [round(float(p), 1) for p in np.percentile(self.times_ms or [np.nan], [50, 95, 99])]


def ask(client: httpx.Client, photo: bytes, seconds: float) -> Asked:
    """Calls one after another for so long, at least one."""
    asked, until = Asked(), time.monotonic() + seconds
    while True:
        begun = time.perf_counter()
        answer = client.post("/identify", content=photo, headers={"Content-Type": "image/jpeg"})
        asked.statuses[answer.status_code] += 1
        if answer.status_code == 200:
            asked.times_ms.append((time.perf_counter() - begun) * 1e3)
        if time.monotonic() > until:
            return asked


def measure(attack: Attack, seconds: float) -> dict[str, Any]:
    """Figures of the attack, and of another caller beside it."""
    photo = next(photographs(1, 640, 480))
    with (
        tempfile.TemporaryDirectory() as folder,
        set_for(attack, Path(folder)) as keys,
        serving(Path(folder)) as (client, process),
    ):
        client.headers["Authorization"] = f"Bearer {keys['good']}"
        ask(client, photo, seconds / 10)
        before_mib = resident_mib(process)
        alone = ask(client, photo, seconds / 2)
        theirs = {"Authorization": f"Bearer {keys['attacker']}"}
        address = client.base_url
        target = Target(
            address.host, int(address.port or 80), theirs, threading.Event(), Path(folder)
        )
        with Watch(process) as watch:
            attacker = threading.Thread(target=attack.run, args=(target,), daemon=True)
            attacker.start()
            beside = ask(client, photo, seconds)
            target.over.set()
            attacker.join()
            recovered_s, final_mib = recovery_s(client, photo, process, before_mib, alone)
    return {
        "name": attack.name,
        "about": attack.about,
        "alone_ms": alone.percentiles(),
        "beside_ms": beside.percentiles(),
        "statuses": dict(beside.statuses),
        "before_mib": round(before_mib),
        "peak_mib": round(watch.peak_mib),
        "final_mib": final_mib,
        "connections": watch.most_connections,
        "recovered_s": recovered_s,
    }


def recovery_s(
    client: httpx.Client, photo: bytes, process: int, before_mib: float, alone: Asked
) -> tuple[float | None, int]:
    """The seconds until memory and the other caller's median are as before; None: they were not.

    With the memory at that time, in MiB."""
    begun = time.monotonic()
    while (gone_s := time.monotonic() - begun) < LONGEST_RECOVERY_S:
        quick = ask(client, photo, SAMPLE_S).percentiles()[0] <= alone.percentiles()[1]
        if quick and resident_mib(process) <= BACK * before_mib:
            return round(gone_s, 1), round(resident_mib(process))
    return None, round(resident_mib(process))


@contextmanager
def set_for(attack: Attack, data: Path) -> Iterator[dict[str, str]]:
    """The environment of the attack's server, which asks for keys, and two secrets."""
    given = {"MIEN_KEYS": "required", **attack.settings}
    before = {name: os.environ.get(name) for name in given}
    os.environ.update(given)
    try:
        yield {name: make_key(name, data) for name in ("good", "attacker")}
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def make_key(name: str, data: Path) -> str:
    """The secret of a new key for images."""
    command = ["keys", "create", name, *SCOPES, "--data", str(data), "--json"]
    made = subprocess.run(
        [sys.executable, "-c", "from service.cli import app; app()", *command],
        check=True,
        capture_output=True,
        text=True,
    )
    return str(json.loads(made.stdout)["key"])


def page(results: list[dict[str, Any]], where: dict[str, Any], seconds: float) -> str:
    """The results as Markdown."""
    lines = [
        *heading("Under attack", f"python -m benchmarks.abuse --seconds {seconds:g}", where),
        "Another caller's /identify, 640x480, p50 / p95 / p99 in ms, alone and beside the attack;",
        "asked for: a p95 of at most three times that alone, and memory back within a tenth.",
        "",
        "| attack | alone | beside | p95 ratio | answers | MiB before / peak / final "
        "| sockets | recovered after s |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for one in results:
        alone, beside = one["alone_ms"], one["beside_ms"]
        cells = [
            f"{one['name']}: {one['about']}",
            " / ".join(map(str, alone)),
            " / ".join(map(str, beside)),
            f"{beside[1] / alone[1]:.1f}",
            ", ".join(f"{count} x {status}" for status, count in one["statuses"].items()),
            f"{one['before_mib']} / {one['peak_mib']} / {one['final_mib']}",
            str(one["connections"]),
            "not within 30 s" if one["recovered_s"] is None else str(one["recovered_s"]),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--only", nargs="*", default=[one.name for one in ATTACKS])
    given = parser.parse_args()
    where = hardware("onnxruntime", "opencv-python-headless", "pillow")
    RESULTS.mkdir(exist_ok=True)
    results = []
    for attack in ATTACKS:
        if attack.name in given.only:
            results.append(measure(attack, given.seconds))
            text = page(results, where, given.seconds)
            (RESULTS / "abuse.md").write_text(text)
            print(json.dumps(results[-1]), flush=True)


if __name__ == "__main__":
    main()
