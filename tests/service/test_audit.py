"""service/guard/audit.py: nothing that was recorded can be changed without being noticed."""

import fcntl
import hashlib
import multiprocessing
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest

from service.errors import AuditUnavailable
from service.guard.audit import BEGINNING, LONGEST_LINE, MENDED, Audit, read_entries, verify


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A log of five entries."""
    audit = Audit(tmp_path / "data" / "audit.jsonl")
    for number in range(5):
        audit.record("front-desk", "identify", faces=number)
    return audit.path


def lines_of(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines(keepends=True)


def test_an_entry_says_who_did_what_when_and_follows_the_one_before(path: Path) -> None:
    entry = Audit(path).record("front-desk", "person.erase", gallery="staff", person="ädä/1")
    entries = list(read_entries(path))
    assert entries[-1] == entry
    assert (entry.sequence, entry.actor, entry.action) == (6, "front-desk", "person.erase")
    assert entry.what == {"gallery": "staff", "person": "ädä/1"}
    assert entry.time.endswith("Z")
    assert [one.sequence for one in entries] == [1, 2, 3, 4, 5, 6]
    assert [one.previous for one in entries] == [BEGINNING, *(one.hash for one in entries[:-1])]
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_log_as_it_was_written_holds_and_one_that_is_not_there_is_empty(path: Path) -> None:
    verdict = verify(path)
    assert (verdict.entries, verdict.flaw) == (5, None)
    assert verdict.head == list(read_entries(path))[-1].head
    assert verify(path.with_name("none")).entries == 0


def edit(lines: list[bytes]) -> list[bytes]:
    return [*lines[:2], lines[2].replace(b'"faces":2', b'"faces":0'), *lines[3:]]


def edit_with_a_hash_that_holds(lines: list[bytes]) -> list[bytes]:
    body = lines[2].rpartition(b',"hash":')[0].replace(b"front-desk", b"somebody")
    line = body + f',"hash":"{hashlib.sha256(body).hexdigest()}"}}\n'.encode()
    return [*lines[:2], line, *lines[3:]]


@pytest.mark.parametrize(
    ("change", "line", "reason"),
    [
        (edit, 3, "it was edited"),
        (edit_with_a_hash_that_holds, 4, "does not follow the line before"),
        (lambda lines: [*lines[:2], *lines[3:]], 3, "entry 4 where 3 is due"),
        (lambda lines: lines[1:], 1, "entry 2 where 1 is due"),
        (lambda lines: [lines[0], lines[2], lines[1], *lines[3:]], 2, "entry 3 where 2 is due"),
        (lambda lines: [*lines[:3], lines[2], *lines[3:]], 4, "entry 3 where 4 is due"),
        (lambda lines: [*lines[:3], b"{}\n", *lines[3:]], 4, "it is no entry"),
        (lambda lines: [*lines[:3], b"\n", *lines[3:]], 4, "it is no entry"),
        (lambda lines: [*lines[:4], lines[4][:40]], 5, "it stops before its end"),
        (lambda lines: [*lines[:4], b"x" * 5 * LONGEST_LINE], 5, "it stops before its end"),
    ],
)
def test_a_change_is_noticed_where_it_is(
    path: Path, change: Callable[[list[bytes]], list[bytes]], line: int, reason: str
) -> None:
    path.write_bytes(b"".join(change(lines_of(path))))
    flaw = verify(path).flaw
    assert flaw is not None
    assert flaw.line == line
    assert reason in flaw.reason


def test_an_end_that_was_cut_off_is_noticed_by_a_head_that_was_noted(path: Path) -> None:
    head = verify(path).head
    assert head is not None
    Audit(path).record("front-desk", "identify")
    assert verify(path, head).flaw is None
    path.write_bytes(b"".join(lines_of(path)[:4]))
    assert verify(path).flaw is None
    flaw = verify(path, head).flaw
    assert flaw is not None
    assert "the log ends with entry 4, and entry 5 was noted" in flaw.reason


def test_a_log_that_was_written_anew_is_noticed_by_a_head_that_was_noted(path: Path) -> None:
    head = verify(path).head
    path.unlink()
    for _ in range(6):
        Audit(path).record("somebody", "identify")
    assert verify(path).flaw is None
    flaw = verify(path, head).flaw
    assert flaw is not None
    assert (flaw.line, "written anew" in flaw.reason) == (5, True)


@pytest.mark.parametrize("head", ["5", "five:" + "0" * 64, "5:abc", ""])
def test_a_head_that_cannot_be_one_is_refused(path: Path, head: str) -> None:
    with pytest.raises(ValueError, match="SEQUENCE:HASH"):
        verify(path, head)


def test_a_torn_last_line_is_told_and_mended_and_no_whole_line_is_lost(path: Path) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole + lines_of(path)[4][:50])
    assert verify(path).flaw is not None
    Audit(path).record("front-desk", "identify")
    assert path.read_bytes().startswith(whole)
    assert verify(path).flaw is None
    mended, last = list(read_entries(path))[5:]
    assert (mended.action, mended.what) == (MENDED, {"torn_bytes": 50})
    assert last.actor == "front-desk"


def test_a_line_that_lacks_nothing_but_its_end_is_kept(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])
    assert Audit(path).record("front-desk", "identify").sequence == 6
    assert verify(path).flaw is None


def test_a_log_whose_only_line_is_torn_begins_anew(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    path.write_bytes(b'{"sequence":1,"ti')
    assert Audit(path).record("front-desk", "identify").sequence == 2
    assert verify(path).flaw is None


@pytest.mark.parametrize("junk", [b"no entry\n", b"x" * 5 * LONGEST_LINE])
def test_nothing_is_appended_to_what_is_no_log(path: Path, junk: bytes) -> None:
    path.write_bytes(path.read_bytes() + junk)
    before = path.read_bytes()
    with pytest.raises(AuditUnavailable, match=r"audit\.jsonl"):
        Audit(path).record("front-desk", "identify")
    assert path.read_bytes() == before


def record_many(path: Path, actor: str, together: Barrier) -> None:
    audit = Audit(path)
    together.wait(60)
    with ThreadPoolExecutor(2) as threads:
        list(threads.map(lambda n: audit.record(actor, "identify", n=n), range(30)))


def test_several_processes_append_at_once_and_the_chain_holds(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    spawn = multiprocessing.get_context("spawn")
    together, actors = spawn.Barrier(3), ("p0", "p1", "p2")
    processes = [spawn.Process(target=record_many, args=(path, a, together)) for a in actors]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert (verify(path).entries, verify(path).flaw) == (90, None)
    for actor in actors:
        mine = [entry.what["n"] for entry in read_entries(path) if entry.actor == actor]
        assert sorted(mine) == list(range(30))


def test_nobody_writes_while_another_process_has_the_log(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.guard.audit._PATIENCE_S", 0.05)
    with path.open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(AuditUnavailable, match="another process keeps it locked"):
            Audit(path).record("front-desk", "identify")
    assert Audit(path).record("front-desk", "identify").sequence == 6


def test_an_entry_is_on_the_disk_before_record_returns(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced = []
    sync = os.fsync

    def note(file: int) -> None:
        sync(file)
        synced.append(os.fstat(file).st_size)

    monkeypatch.setattr(os, "fsync", note)
    Audit(path).record("front-desk", "identify")
    assert synced == [path.stat().st_size]


def test_an_entry_that_cannot_be_written_leaves_nothing_and_says_so(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a disk that is full in the middle of a line; /dev/full and a full file system are
    driven in tests/api."""
    before, write = path.read_bytes(), os.write

    def write_some(file: int, data: bytes) -> int:
        if len(data) < 100:
            raise OSError(28, "No space left on device")
        return write(file, data[: len(data) - 50])

    monkeypatch.setattr(os, "write", write_some)
    with pytest.raises(AuditUnavailable, match="No space left"):
        Audit(path).record("front-desk", "identify")
    monkeypatch.undo()
    assert path.read_bytes() == before
    assert Audit(path).record("front-desk", "identify").sequence == 6


def test_an_entry_that_is_too_long_is_refused(path: Path) -> None:
    with pytest.raises(ValueError, match="at most 65536 bytes"):
        Audit(path).record("front-desk", "identify", note="x" * LONGEST_LINE)
    assert verify(path).entries == 5
