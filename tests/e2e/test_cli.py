"""The command against a server that it started itself, and on the same data without one."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.e2e.lfw import lay_out
from tests.e2e.server import ROOT, serving
from tests.shared import needs_shared

MIEN = [sys.executable, "-c", "from service.cli import app; app()"]
FILES = {
    "people/halle/1.jpg": "Halle_Berry 6",
    "people/halle/2.jpg": "Halle_Berry 12",
    "people/kofi/1.jpg": "Kofi_Annan 8",
    "halle.jpg": "Halle_Berry 7",
}


def environment(settings: dict[str, Any]) -> dict[str, str]:
    given = {"port": 0, **settings}
    mien = {f"MIEN_{name.upper()}": str(value) for name, value in given.items()}
    return {**{k: v for k, v in os.environ.items() if not k.startswith("MIEN_")}, **mien}


def told(*arguments: object, settings: dict[str, Any]) -> Any:
    """What the command prints with --json."""
    done = subprocess.run(
        [*MIEN, *map(str, arguments), "--json"],
        cwd=ROOT,
        env=environment(settings),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@contextmanager
def mien_serve(log: Path, data: Path) -> Iterator[str]:
    """The address of `mien serve`, ready; it ends well when it is told to."""
    with serving(data, log, command=[*MIEN, "serve"]) as address:
        yield address
    assert "Traceback" not in log.read_text(encoding="utf-8", errors="replace")


@needs_shared("data/lfw/photos.zip")
def test_the_command_says_the_same_with_a_server_and_without(tmp_path: Path) -> None:
    folder = lay_out(tmp_path, FILES)
    settings = {"data": tmp_path / "data"}
    with mien_serve(tmp_path / "log", tmp_path / "data") as address:
        outcome = told("enroll", folder / "people", "--url", address, settings=settings)
        served = told("identify", folder / "halle.jpg", "--url", address, settings=settings)
        drawn = ("analyze", folder / "halle.jpg", "--gallery", "default", "--draw")
        seen_there = told(*drawn, tmp_path / "there.png", "--url", address, settings=settings)
    assert [(e["person_id"], e["before"]) for e in sorted(outcome["enrolled"], key=str)] == [
        ("halle", False),
        ("halle", False),
        ("kofi", False),
    ]

    seen_here = told(*drawn, tmp_path / "here.png", settings=settings)
    again = told("enroll", folder / "people", settings=settings)
    here = told("identify", folder / "halle.jpg", settings=settings)
    assert all(entry["before"] for entry in again["enrolled"])
    assert {e["face_id"] for e in again["enrolled"]} == {e["face_id"] for e in outcome["enrolled"]}
    for found in (served, here, seen_there, seen_here):
        for of_the_call in ("timings_ms", "request_id"):
            found[0]["answer"].pop(of_the_call)
    assert here == served
    [face] = here[0]["answer"]["images"][0]["faces"]
    assert face["candidates"][0]["person_id"] == "halle"
    assert seen_here == seen_there
    assert (tmp_path / "here.png").read_bytes() == (tmp_path / "there.png").read_bytes()
