"""service/cgroup.py, and the defaults that follow it: a container is not the machine it runs on."""

from pathlib import Path

import pytest

from service import settings as settings_module
from service.cgroup import Bounds, bounds
from service.settings import MIB, Settings


def group(mount: Path, path: str, **files: str) -> None:
    folder = mount / path
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text + "\n")


def own(tmp_path: Path, *lines: str) -> Path:
    path = tmp_path / "own"
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def test_the_least_of_a_group_and_those_above_it_holds(tmp_path: Path) -> None:
    mount = tmp_path / "cgroup"
    group(mount, "", cpu__max="max 100000", memory__max="max")
    group(mount, "pods", cpu__max="400000 100000", memory__max=str(1 << 30))
    group(mount, "pods/mien", cpu__max="250000 100000", memory__max=str(4 << 30))
    assert bounds(mount, own(tmp_path, "0::/pods/mien")) == Bounds(2.5, 1 << 30)
    assert bounds(mount, own(tmp_path, "0::/")) == Bounds(None, None)


def test_a_container_that_sees_its_own_group_as_the_root_reads_it_there(tmp_path: Path) -> None:
    mount = tmp_path / "cgroup"
    group(mount, "", cpu__max="150000 100000", memory__max="1000000")
    for line in ("0::/", "0::/docker/not-seen-from-here"):
        assert bounds(mount, own(tmp_path, line)) == Bounds(1.5, 1_000_000)


def test_version_1_is_read_too(tmp_path: Path) -> None:
    mount = tmp_path / "cgroup"
    group(mount, "cpu/mien", cpu__cfs_quota_us="200000", cpu__cfs_period_us="100000")
    group(mount, "cpu", cpu__cfs_quota_us="-1", cpu__cfs_period_us="100000")
    group(mount, "memory/mien", memory__limit_in_bytes=str(1 << 31))
    group(mount, "memory", memory__limit_in_bytes="9223372036854771712")
    lines = ("4:memory:/mien", "1:cpu,cpuacct:/mien", "0::/")
    assert bounds(mount, own(tmp_path, *lines)) == Bounds(2.0, 1 << 31)


@pytest.mark.parametrize("text", ["", "max", "none of it", "0 0", "\u00fc 1"])
def test_what_is_no_bound_is_none(tmp_path: Path, text: str) -> None:
    mount = tmp_path / "cgroup"
    group(mount, "", cpu__max=text, memory__max=text)
    assert bounds(mount, own(tmp_path, "0::/")) == Bounds()
    assert bounds(mount, tmp_path / "no-such-file") == Bounds()


def bounded(monkeypatch: pytest.MonkeyPatch, cores: float | None, memory_mib: int | None) -> None:
    memory = None if memory_mib is None else memory_mib * MIB
    monkeypatch.setattr(settings_module, "bounds", lambda: Bounds(cores, memory))
    monkeypatch.setattr(settings_module.os, "sched_getaffinity", lambda pid: range(16))


@pytest.mark.parametrize(
    ("cores", "workers", "share"), [(None, 1, 16), (4, 1, 4), (2.5, 1, 2), (0.5, 1, 1), (4, 2, 2)]
)
def test_threads_follow_the_processor_time_of_the_container(
    monkeypatch: pytest.MonkeyPatch, cores: float | None, workers: int, share: int
) -> None:
    bounded(monkeypatch, cores, None)
    settings = Settings(workers=workers)
    assert settings.cores_a_worker == settings.photographs_at_once == settings.runs_at_once == share
    assert Settings(photographs=9).photographs_at_once == 9


@pytest.mark.parametrize("memory_mib", [3072, 4096, 8192, 65536])
@pytest.mark.parametrize("workers", [1, 2])
def test_photographs_and_buffers_follow_the_memory_of_the_container(
    monkeypatch: pytest.MonkeyPatch, memory_mib: int, workers: int
) -> None:
    bounded(monkeypatch, None, memory_mib)
    settings = Settings(workers=workers)
    assert settings.worst_case_bytes <= memory_mib * MIB or settings.photographs_at_once == 1
    assert settings.buffered_bytes >= 2 * settings.max_body_bytes
    bounded(monkeypatch, None, None)
    assert Settings(workers=workers).photographs_at_once == 16 // workers


def test_smaller_photographs_leave_room_for_more_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    bounded(monkeypatch, None, 4096)
    small = Settings(max_pixels=4_000_000).photographs_at_once
    assert small > Settings().photographs_at_once
