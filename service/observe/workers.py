"""How the worker processes are, as files of the folder that they share.

The parent writes `workers.json`, each worker reads it for /readyz and /metrics. A worker that
cannot start leaves the reason in `worker-PID.json`, which its parent reads once it has ended.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from service.errors import MienError

_STATE: Final = "workers.json"


@dataclass(frozen=True)
class Workers:
    """Worker processes: how many are wanted, how many are ready, and a sentence about each that
    could not be started."""

    wanted: int = 1
    ready: int = 1
    degraded: tuple[str, ...] = ()


def write_workers(folder: Path, workers: Workers) -> None:
    """Replace what the folder has of them, at once. Raises OSError."""
    file = folder / (_STATE + ".new")
    file.write_text(json.dumps(asdict(workers)), encoding="utf-8")
    file.replace(folder / _STATE)


def read_workers(folder: Path | None) -> Workers:
    """The workers as their parent wrote them last; folder None: there is one process, this one."""
    if folder is None:
        return Workers()
    try:
        given = json.loads((folder / _STATE).read_bytes())
    except (OSError, ValueError):  # it could not be written, as on a full disk
        return Workers()
    return Workers(given["wanted"], given["ready"], tuple(given["degraded"]))


@contextmanager
def reason_left(folder: Path | None, pid: int) -> Iterator[None]:
    """Write the error that ends the start of the worker process into the folder, for its parent."""
    try:
        yield
    except MienError as error:
        if folder is not None:
            with suppress(OSError):
                reason = json.dumps([error.slug, str(error)])
                _reason_file(folder, pid).write_text(reason, encoding="utf-8")
        raise


def take_reason(folder: Path, pid: int) -> tuple[str, str] | None:
    """The slug and text of the error that the worker process left, removed; None if there is none.

    The text may have paths in it: it is for the log, and the slug for /readyz, which anybody reads.
    """
    file = _reason_file(folder, pid)
    try:
        slug, text = json.loads(file.read_bytes())
        file.unlink()
    except (OSError, ValueError):
        return None
    return slug, text


def _reason_file(folder: Path, pid: int) -> Path:
    return folder / f"worker-{pid}.json"
