"""What the benchmarks of a running service share: a server process, photographs, the hardware."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from zipfile import ZipFile

import cv2
import httpx
import numpy as np

ROOT: Final = Path(__file__).parents[1]
RESULTS: Final = ROOT / "benchmarks" / "results"
LFW: Final = ROOT.parent / "shared" / "data" / "lfw" / "photos.zip"
_POLL_S: Final = 0.1
_RUNNING: Final = re.compile(r"Uvicorn running on (http://\S+:\d+) ")
_SERVE: Final = "from service.cli import app; app(['serve'])"


@contextmanager
def serving(data: Path) -> Iterator[tuple[httpx.Client, int]]:
    """A client of a server process on that data folder, ready, and the process's id.

    MIEN_* variables of the environment hold for it, but for the port, which the system chooses, the
    data folder (an existing one) and the number of workers, which is one.
    """
    given = {"MIEN_DATA": str(data), "MIEN_PORT": "0", "MIEN_WORKERS": "1"}
    log = data / "server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-c", _SERVE],
            cwd=ROOT,
            env={**os.environ, **given},
            stdout=output,
            stderr=output,
        )
    try:
        address = _until_listening(process, log)
        with httpx.Client(base_url=address, timeout=120) as client:
            while not client.get("/readyz").is_success:
                time.sleep(_POLL_S)
            yield client, process.pid
    finally:
        process.terminate()
        process.wait(timeout=60)


def _until_listening(process: "subprocess.Popen[bytes]", log: Path) -> str:
    """The server's address, once its log names it. Raises SystemExit if the process ends first."""
    while (found := _RUNNING.search(log.read_text(encoding="utf-8"))) is None:
        if process.poll() is not None:
            raise SystemExit(f"the server did not start:\n{log.read_text(encoding='utf-8')}")
        time.sleep(_POLL_S)
    return found[1]


def photographs(count: int, width: int, height: int) -> Iterator[bytes]:
    """JPEGs of that size: each one of LFW's photographs on grey, half as large again if it fits."""
    with ZipFile(LFW) as archive:
        for name in sorted(archive.namelist())[:count]:
            photograph = cv2.imdecode(np.frombuffer(archive.read(name), np.uint8), cv2.IMREAD_COLOR)
            scale = min(1.5, width / photograph.shape[1], height / photograph.shape[0])
            photograph = cv2.resize(photograph, None, fx=scale, fy=scale)
            canvas = np.full((height, width, 3), 128, np.uint8)
            y, x = (height - photograph.shape[0]) // 2, (width - photograph.shape[1]) // 2
            canvas[y : y + photograph.shape[0], x : x + photograph.shape[1]] = photograph
            yield cv2.imencode(".jpg", canvas, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes()


def heading(title: str, command: str, where: dict[str, Any]) -> list[str]:
    """The first lines of a page of results."""
    return [f"# {title}", "", f"`{command}`", "", *(f"{k}: {v}  " for k, v in where.items()), ""]
