"""Limits of the container: the processors and memory of its control group.

Files of cgroup v2 (docs.kernel.org/admin-guide/cgroup-v2), and of v1 where a host still has it. A
group has no more than those above it, so the least of them all holds.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

MOUNT: Final = Path("/sys/fs/cgroup")
OWN: Final = Path("/proc/self/cgroup")
_UNBOUNDED_V1: Final = 1 << 60  # v1 writes "none" as a number near 2**63


@dataclass(frozen=True)
class Bounds:
    """cores: processor time per time; None of either: without a bound."""

    cores: float | None = None
    memory_bytes: int | None = None


def bounds(mount: Path = MOUNT, own: Path = OWN) -> Bounds:
    """The bounds of this process's control group; none where there is none."""
    cores, memory = [], []
    for group in _groups(mount, own, ""):
        quota, _, period = _text(group / "cpu.max").partition(" ")
        cores += _cores(quota, period)
        memory += _bytes(_text(group / "memory.max"))
    for group in _groups(mount, own, "cpu"):
        cores += _cores(_text(group / "cpu.cfs_quota_us"), _text(group / "cpu.cfs_period_us"))
    for group in _groups(mount, own, "memory"):
        memory += _bytes(_text(group / "memory.limit_in_bytes"))
    return Bounds(min(cores, default=None), min(memory, default=None))


def _groups(mount: Path, own: Path, controller: str) -> Iterator[Path]:
    """The folders of the process's group and of those above it; controller: "" for v2."""
    for line in _text(own).splitlines():
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            root = mount / controller
            here = root / path.lstrip("/")
            yield from [here, *here.parents[: len(here.relative_to(root).parts)]]


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, ValueError):  # a group that a container does not see, a value that is none
        return ""


def _cores(quota: str, period: str) -> list[float]:
    if not (quota.isdecimal() and period.isdecimal() and int(period) > 0):
        return []  # "max", "-1", or nothing
    return [int(quota) / int(period)]


def _bytes(limit: str) -> list[int]:
    return [int(limit)] if limit.isdecimal() and int(limit) < _UNBOUNDED_V1 else []
