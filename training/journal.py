"""A run's log: one line of JSON a row in log.jsonl, and the same numbers for TensorBoard.

A round (one recipe's run) opens with a row {"step", "round": recipe and facts}; all other rows are
{"step", name: number, ...}. A run that goes on from a checkpoint takes back the rows that lie
after it, so that the log is the one of a run that was never broken off.
"""

import json
import os
import platform
from pathlib import Path
from typing import Any

import torch
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from training.checkpoint import write_text


class Journal:
    """Rank 0's pen; the other ranks have none and write nothing."""

    def __init__(
        self, folder: Path, opening: dict[str, Any], *, resumed_at: int | None, writes: bool
    ) -> None:
        """opening: what the first row tells. resumed_at: the step whose rows are the last to
        stay; None begins a round behind those that the log may hold."""
        self._log, self._events = folder / "log.jsonl", None
        if not writes:
            return
        step = resumed_at or 0
        if resumed_at is None:
            self._append({"step": 0, "round": opening})
        else:
            rows = self._kept(step)
            write_text(self._log, "".join(rows))
            self._append({"step": step, "resumed": opening})
        self._events = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)

    def row(self, step: int, values: dict[str, float]) -> None:
        """Writes a row; numbers are rounded to six decimals."""
        if self._events is None:
            return
        line = {"step": step} | {name: round(value, 6) for name, value in values.items()}
        tqdm.write(self._append(line))
        for name, value in values.items():
            self._events.add_scalar(name, value, step)

    def close(self) -> None:
        if self._events is not None:
            self._events.close()

    def _append(self, row: dict[str, Any]) -> str:
        line = json.dumps(row)
        try:
            with self._log.open("a") as log:
                log.write(line + "\n")
        except OSError as error:
            raise OSError(f"{self._log} could not be written: {error}") from error
        return line

    def _kept(self, step: int) -> list[str]:
        """The lines, but those of the last round that lie after the step (or are cut off)."""
        lines = self._log.read_text().splitlines(keepends=True) if self._log.exists() else []
        rows = [_row(line) for line in lines]
        opened = max((i for i, row in enumerate(rows) if row and "round" in row), default=0)
        return [
            line
            for i, (line, row) in enumerate(zip(lines, rows, strict=True))
            if i < opened or (row is not None and row["step"] <= step)
        ]


def hardware() -> dict[str, Any]:
    """What a speed hangs on: processor, cores, accelerator, versions."""
    names = Path("/proc/cpuinfo")
    lines = names.read_text().splitlines() if names.exists() else []
    cpu = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return {
        "cpu": cpu[0] if cpu else platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "torch": torch.__version__,
    }


def _row(line: str) -> dict[str, Any] | None:
    try:
        row: dict[str, Any] = json.loads(line)
    except ValueError:
        return None
    return row
