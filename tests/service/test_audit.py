"""service/guard/audit.py: nothing that was recorded can be changed without being noticed."""

import fcntl
import hashlib
import multiprocessing
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest

from service.errors import AuditUnavailable
from service.guard import audit as audit_module
from service.guard.audit import (
    BEGINNING,
    CONTINUED,
    LONGEST_LINE,
    MENDED,
    Audit,
    files_of,
    read_entries,
    verify,
)


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


def test_a_lock_that_the_disk_cannot_give_is_told_as_what_cannot_be_recorded(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(AuditUnavailable, match="No locks available"):
        Audit(path).record("front-desk", "identify")
    monkeypatch.undo()
    assert Audit(path).record("front-desk", "identify").sequence == 6


# Files that were put aside.


@pytest.fixture
def divided(path: Path) -> Path:
    """A log of three files: five entries, seven and nine."""
    for name, entries in (("audit-b.jsonl", 1), ("audit-a.jsonl", 1)):
        path.rename(path.with_name(name))
        for _ in range(entries):
            Audit(path).record("front-desk", "identify", file=name)
    return path


def test_a_log_that_was_put_aside_goes_on_in_a_new_file(divided: Path) -> None:
    assert [file.name for file in files_of(divided)] == [
        *("audit-b.jsonl", "audit-a.jsonl", "audit.jsonl")
    ]
    entries = list(read_entries(divided))
    assert [entry.sequence for entry in entries] == list(range(1, 10))
    continued = [entry for entry in entries if entry.action == CONTINUED]
    assert [(entry.sequence, entry.what["file"]) for entry in continued] == [
        *((6, "audit-b.jsonl"), (8, "audit-a.jsonl"))
    ]
    verdict = verify(divided, entries[2].head)
    assert (verdict.entries, verdict.flaw, verdict.follows) == (9, None, None)
    assert verdict.head == entries[-1].head


def test_a_change_in_a_file_that_was_put_aside_is_noticed_where_it_is(divided: Path) -> None:
    aside = divided.with_name("audit-a.jsonl")
    whole = aside.read_bytes()
    aside.write_bytes(whole.replace(b"audit-b", b"audit-x"))
    flaw = verify(divided).flaw
    assert flaw is not None
    assert (flaw.file, flaw.line, flaw.reason) == (
        *("audit-a.jsonl", 1),
        "its hash does not hold: it was edited",
    )
    aside.unlink()
    missing = verify(divided).flaw
    assert missing is not None
    assert (missing.file, missing.line) == ("audit.jsonl", 1)
    assert "entry 8 where 6 is due" in missing.reason


def test_the_oldest_files_may_lie_elsewhere_and_what_is_left_says_what_it_follows(
    divided: Path,
) -> None:
    older, last, *_ = [entry.head for entry in list(read_entries(divided))[3:]]
    divided.with_name("audit-b.jsonl").unlink()
    verdict = verify(divided, last)
    assert (verdict.entries, verdict.flaw, verdict.follows) == (4, None, last)
    for head, reason in (
        (older, "entry 4 was noted, and what is here begins with entry 6"),
        (f"5:{'0' * 64}", "not the entry whose head was noted"),
    ):
        flaw = verify(divided, head).flaw
        assert flaw is not None
        assert (flaw.line, reason in flaw.reason) == (1, True)


def test_who_waited_for_a_file_that_was_put_aside_writes_to_the_new_one(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock, aside = audit_module._lock, path.with_name("audit-1.jsonl")

    def lock_late(file: int, kind: int = fcntl.LOCK_EX) -> None:
        if not aside.exists():
            path.rename(aside)
        lock(file, kind)

    monkeypatch.setattr(audit_module, "_lock", lock_late)
    assert Audit(path).record("front-desk", "identify").sequence == 7
    assert len(lines_of(aside)) == 5
    assert (verify(path).entries, verify(path).flaw) == (7, None)


def test_a_log_that_is_put_aside_while_it_is_checked_holds(
    divided: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, aside = audit_module.lines_of, divided.with_name("audit-c.jsonl")

    def put_aside_meanwhile(file: Path, start: int = 0) -> Iterator[bytes]:
        yield from read(file, start)
        if file.name == "audit-a.jsonl" and not aside.exists():
            divided.rename(aside)
            Audit(divided).record("front-desk", "identify")

    monkeypatch.setattr(audit_module, "lines_of", put_aside_meanwhile)
    verdict = verify(divided)
    assert (verdict.entries, verdict.flaw) == (11, None)


def test_a_torn_line_of_a_file_that_was_put_aside_is_mended_too(path: Path) -> None:
    torn = lines_of(path)[4][:50]
    path.write_bytes(path.read_bytes() + torn)
    path.rename(path.with_name("audit-1.jsonl"))
    assert Audit(path).record("front-desk", "identify").sequence == 8
    assert [entry.action for entry in read_entries(path)][5:] == [CONTINUED, MENDED, "identify"]
    assert verify(path).flaw is None
