"""The audit log: what was done and by whom, in lines that cannot be changed without being noticed.

audit.jsonl holds a JSON object a line, in one order: sequence (from 1), time (UTC), actor, action,
what, previous, hash. `hash` is the SHA-256 of the line's bytes before `,"hash"`, and `previous` the
hash of the line before (of the first: 64 zeros). So each line vouches for all before it: who edits,
takes out or moves one breaks the chain there. What a chain cannot tell is that its end was cut off,
or that all of it was written anew: for that, note its head elsewhere (SEQUENCE:HASH) and give it
to `verify`.

The chain may go on in a new file: put the old one aside in the same folder, as audit-*.jsonl (mv
will do, also while the service runs), and the next entry begins a new audit.jsonl that follows it,
with an entry `audit.continued` first. All the files of a folder are one log, and read as one; the
oldest may be taken elsewhere.

A line holds ids and counts: never an image, an embedding or a name of a person.
"""

import fcntl
import hashlib
import json
import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, Final

from service.errors import AuditUnavailable

FILE: Final = "audit.jsonl"
BEGINNING: Final = "0" * 64
LONGEST_LINE: Final = 65_536
MENDED: Final = "audit.mended"
CONTINUED: Final = "audit.continued"
_PATIENCE_S: Final = 10.0
_RETRY_S: Final = 0.002
_ITSELF: Final = "mien"
_GONE: Final = (
    "{name} was removed while the service ran, and the entries in it are missing: put it back, or "
    "look at what happened and start again"
)
_WITHOUT_GALLERIES: Final = ("access", "audit", "key")  # how the actions begin


@dataclass(frozen=True)
class Entry:
    """A line. sequence: from 1; time: ISO 8601 in UTC; previous, hash: 64 hexadecimal digits."""

    sequence: int
    time: str
    actor: str
    action: str
    what: Mapping[str, Any]
    previous: str
    hash: str

    @property
    def head(self) -> str:
        """What to note elsewhere, SEQUENCE:HASH: it vouches for this line and all before it."""
        return f"{self.sequence}:{self.hash}"


@dataclass(frozen=True)
class Flaw:
    """The first line that does not hold. file: the name of the file it is in; line: its number
    there, from 1; reason: in words."""

    file: str
    line: int
    reason: str


@dataclass(frozen=True)
class Verdict:
    """What a check came to. entries: how many hold; head: of the last that does, None where there
    is none; flaw: None where all hold; follows: the head of what came before, where the oldest
    files lie elsewhere, None where the log is here from its beginning."""

    entries: int
    head: str | None
    flaw: Flaw | None
    follows: str | None = None


@dataclass(frozen=True)
class _Place:
    """Which file it is, and how many bytes it has."""

    file: tuple[int, int]
    size: int

    @staticmethod
    def of(stat: os.stat_result) -> "_Place":
        return _Place((stat.st_dev, stat.st_ino), stat.st_size)


def _place_of(path: Path) -> _Place:
    return _Place.of(path.stat())


class Audit:
    """The log at a path, for any number of threads and processes; made with its first entry."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._threads = threading.Lock()
        self._seen: _Place | None = None

    def record(self, actor: str, action: str, **what: Any) -> Entry:
        """The entry, on the disk. what: JSON values.

        A last line that was torn (a crash in the middle of writing) is mended first: it is taken
        away, and an entry `audit.mended` of its own says so. A file that is new follows the newest
        of those that were put aside. Raises AuditUnavailable: nothing of
        the entry was kept then. ValueError for an entry of more than LONGEST_LINE bytes.
        """
        with self._mine() as file:
            entry = self._append(file, actor, action, what)
            self._see(file)
            return entry

    def check(self) -> str | None:
        """What is wrong with the log as it stands, in a sentence: the file to which this process
        wrote or which it saw is gone or was cut, or its last line is no entry. None: nothing.

        Lines before the last one are for `verify`. What is being written to is not looked at.
        """
        try:
            places = {_place_of(file).file for file in files_of(self.path)}
            if self._seen is not None and self._seen.file not in places:
                return _GONE.format(name=self.path.name)
            file = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        except (OSError, AuditUnavailable) as error:
            return f"the audit log cannot be read: {getattr(error, 'strerror', None) or error}"
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return self._checked(file)
        except BlockingIOError:
            return None
        except OSError as error:
            return f"the audit log cannot be read: {error.strerror}"
        finally:
            os.close(file)

    def _checked(self, file: int) -> str | None:
        here = _Place.of(os.fstat(file))
        if self._seen is not None and self._seen.file == here.file and here.size < self._seen.size:
            return f"{self.path.name} was cut: it ends before an entry that was written"
        start = max(0, here.size - 2 * LONGEST_LINE)
        tail = os.pread(file, here.size - start, start)
        whole = tail[: tail.rfind(b"\n") + 1]  # what is torn behind it the next entry mends
        last = whole[whole.rfind(b"\n", 0, -1) + 1 :]
        if (last or start) and not _holds(last):
            self._seen = None  # it is put elsewhere now, and a new one begun
            return f"the last line of {self.path.name} is no entry; look with `mien audit verify`"
        self._see(file, whole_size=start + len(whole))
        return None

    def _see(self, file: int, whole_size: int | None = None) -> None:
        """Notes the file, unless the one seen before was longer, or is neither it nor put aside."""
        here = _Place.of(os.fstat(file))
        if whole_size is not None:
            here = replace(here, size=whole_size)
        before = self._seen
        if before is None:
            known = True
        elif before.file == here.file:
            known = before.size <= here.size
        else:
            known = before.file in {_place_of(path).file for path in files_of(self.path)}
        if known:
            self._seen = here

    def _append(self, file: int, actor: str, action: str, what: Mapping[str, Any]) -> Entry:
        last, torn = _mend(file, self.path)
        if last is None and (before := files_of(self.path)[:-1]):
            with _locked(before[-1]) as ended:
                last, torn_there = _mend(ended, before[-1])
            torn += torn_there
            if last is not None:
                what_before = {"file": before[-1].name}
                last = _write(file, _next(last, _ITSELF, CONTINUED, what_before))
        if torn:
            last = _write(file, _next(last, _ITSELF, MENDED, {"torn_bytes": torn}))
        return _write(file, _next(last, actor, action, what))

    @contextmanager
    def _mine(self) -> Iterator[int]:
        """The file, open and locked. Raises AuditUnavailable."""
        if not self._threads.acquire(timeout=_PATIENCE_S):
            raise AuditUnavailable("it is busy with other entries")
        try:
            with _locked(self.path) as file:
                yield file
        except OSError as error:
            raise AuditUnavailable(error.strerror or str(error)) from error
        finally:
            self._threads.release()


def files_of(path: Path) -> list[Path]:
    """The log's files that are there, the oldest first: those put aside, and the one at the path.

    Raises OSError, AuditUnavailable.
    """
    aside = sorted(path.parent.glob(f"{path.stem}-*{path.suffix}"), key=_first_sequence)
    return [*aside, path] if path.exists() else aside


def read_entries(path: Path) -> Iterator[Entry]:
    """The entries of all files as they stand, none where there is no file. Raises ValueError for a
    line that is none, with its file and number."""
    for file in files_of(path):
        for number, line in enumerate(lines_of(file), 1):
            try:
                yield entry_of(line)
            except ValueError as error:
                raise ValueError(f"{file.name}, line {number}: {error}") from error


def tells_of_galleries(path: Path) -> bool:
    """True if an entry is of something that only a service with galleries does: keys are made
    before there are any. Raises AuditUnavailable."""
    try:
        return any(
            entry is not None and entry.action.partition(".")[0] not in _WITHOUT_GALLERIES
            for file in files_of(path)
            for entry in map(_entry_if_any, lines_of(file))
        )
    except OSError as error:
        raise AuditUnavailable(error.strerror or str(error)) from error


def verify(path: Path, head: str | None = None) -> Verdict:
    """Whether every line of all files is as it was written, and where it is not so first.

    head: SEQUENCE:HASH as it was noted once; the log must still have that entry. A log that is
    being written to is judged as it was at the beginning of the check, and anew where one of its
    files was put aside meanwhile. Raises ValueError for a head that cannot be one, OSError.
    """
    noted = _noted(head)
    while True:
        files = files_of(path)
        verdict = _judged(files or [path], noted)
        if verdict.flaw is None or files_of(path) == files:
            return verdict


def _judged(files: Sequence[Path], noted: tuple[int, str]) -> Verdict:
    """What a check of these files comes to, the oldest first."""
    first: Entry | None = None
    last: Entry | None = None
    file, number = files[-1], 0
    for file in files:
        for number, line in enumerate(lines_of(file), 1):
            try:
                entry = entry_of(line)
                _require_next(last, entry)
                _require_noted(last, entry, noted)
            except ValueError as error:
                return _verdict(first, last, Flaw(file.name, number, str(error)))
            first, last = first or entry, entry
    sequence = last.sequence if last else 0
    if sequence < noted[0]:
        reason = f"the log ends with entry {sequence}, and entry {noted[0]} was noted: it was cut"
        return _verdict(first, last, Flaw(file.name, number + 1, reason))
    return _verdict(first, last, None)


def _verdict(first: Entry | None, last: Entry | None, flaw: Flaw | None) -> Verdict:
    if first is None or last is None:
        return Verdict(0, None, flaw)
    before = first.sequence - 1
    follows = f"{before}:{first.previous}" if before else None
    return Verdict(last.sequence - before, last.head, flaw, follows)


def _noted(head: str | None) -> tuple[int, str]:
    sequence, _, digest = (head or "0:").partition(":")
    if not sequence.isdecimal() or (head is not None and len(digest) != len(BEGINNING)):
        raise ValueError(f"a head is SEQUENCE:HASH as `mien audit head` prints it, not {head!r}")
    return int(sequence), digest.lower()


def _next(last: Entry | None, actor: str, action: str, what: Mapping[str, Any]) -> bytes:
    """The line that follows the last."""
    text = json.dumps(
        {
            "sequence": last.sequence + 1 if last else 1,
            "time": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "actor": actor,
            "action": action,
            "what": what,
            "previous": last.hash if last else BEGINNING,
        },
        allow_nan=False,
        separators=(",", ":"),
    )
    body = text[:-1].encode("ascii")
    line = body + b',"hash":"' + hashlib.sha256(body).hexdigest().encode() + b'"}\n'
    if len(line) > LONGEST_LINE:
        raise ValueError(f"an entry has at most {LONGEST_LINE} bytes, not {len(line)}")
    return line


def entry_of(line: bytes) -> Entry:
    """The entry of a line. Raises ValueError where it is none, or not as it was written."""
    if not line.endswith(b"\n"):
        raise ValueError("it stops before its end: torn in the middle of writing, or cut")
    body, _, rest = line.rpartition(b',"hash":')
    try:
        entry = Entry(**json.loads(line))
        if not (isinstance(entry.sequence, int) and isinstance(entry.what, Mapping)):
            raise ValueError
        if not all(isinstance(t, str) for t in (entry.actor, entry.action, entry.hash)):
            raise ValueError
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError("it is no entry: edited, or damaged") from error
    if rest != f'"{hashlib.sha256(body).hexdigest()}"}}\n'.encode():
        raise ValueError("its hash does not hold: it was edited")
    return entry


def _require_next(last: Entry | None, entry: Entry) -> None:
    if last is None and entry.action == CONTINUED:
        return  # the files before lie elsewhere
    due = last.sequence + 1 if last else 1
    if entry.sequence != due:
        reason = f"it is entry {entry.sequence} where {due} is due: lines were taken out or moved"
        raise ValueError(reason)
    if entry.previous != (last.hash if last else BEGINNING):
        raise ValueError("it does not follow the line before, which was written anew")


def _require_noted(last: Entry | None, entry: Entry, noted: tuple[int, str]) -> None:
    """Raises ValueError where an entry is not the one that was noted, or does not follow it."""
    sequence, digest = noted
    if last is None and 0 < sequence < entry.sequence - 1:
        begins = f"what is here begins with entry {entry.sequence}"
        raise ValueError(f"entry {sequence} was noted, and {begins}: the files before are missing")
    told = {entry.sequence - 1: entry.previous, entry.sequence: entry.hash}
    if sequence and told.get(sequence, digest) != digest:
        raise ValueError("it is not the entry whose head was noted: all was written anew")


def _first_sequence(path: Path) -> int:
    """Of a file's first entry; 0 where it has none."""
    try:
        return entry_of(next(lines_of(path), b"")).sequence
    except ValueError:
        return 0


def lines_of(path: Path, start: int = 0) -> Iterator[bytes]:
    """The lines of a file that are there now, with their ends, from a byte on; what is appended
    meanwhile is left out. Raises OSError, AuditUnavailable."""
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return
    with file:
        _lock(file.fileno(), fcntl.LOCK_SH)
        left = os.fstat(file.fileno()).st_size - start
        fcntl.flock(file, fcntl.LOCK_UN)
        file.seek(start)
        while left > 0 and (line := _line(file, left)):
            left -= len(line)
            yield line


def _line(file: BinaryIO, left: int) -> bytes:
    return file.readline(min(left, 2 * LONGEST_LINE))  # a longer one is none of ours


@contextmanager
def _locked(path: Path) -> Iterator[int]:
    """The file at the path, open and locked: not one that was put aside while it was waited for.

    Raises OSError, AuditUnavailable.
    """
    while True:
        file = _open(path)
        try:
            _lock(file)
            if _is_at(path, file):
                yield file
                return
        finally:
            os.close(file)  # and the lock with it


def _is_at(path: Path, file: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(file))
    except FileNotFoundError:
        return False


def _open(path: Path) -> int:
    """The file, made where it is not there: then its name is on the disk too."""
    flags = os.O_RDWR | os.O_APPEND | os.O_CLOEXEC
    try:
        return os.open(path, flags)
    except FileNotFoundError:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = os.open(path, flags | os.O_CREAT, 0o600)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        return file


def _lock(file: int, kind: int = fcntl.LOCK_EX) -> None:
    give_up = time.monotonic() + _PATIENCE_S
    while True:
        try:
            fcntl.flock(file, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > give_up:
                raise AuditUnavailable("another process keeps it locked") from None
            time.sleep(_RETRY_S)
        else:
            return


def _mend(file: int, path: Path) -> tuple[Entry | None, int]:
    """The last whole entry of a file, and how many bytes of a torn one behind it were taken away.

    Raises AuditUnavailable where the last line is whole and no entry: nothing can follow it.
    """
    size = os.fstat(file).st_size
    start = max(0, size - 2 * LONGEST_LINE)
    tail = os.pread(file, size - start, start)
    torn = tail[tail.rfind(b"\n") + 1 :]
    if start and len(torn) == len(tail):
        reason = f"{path.name} does not end with a line: what is there is no audit log"
        raise AuditUnavailable(reason)
    if torn and _holds(torn + b"\n"):  # all of it but its end
        os.write(file, b"\n")
        tail, torn = tail + b"\n", b""
    elif torn:
        os.ftruncate(file, size - len(torn))
        tail = tail[: len(tail) - len(torn)]
    if not tail:
        return None, len(torn)
    try:
        return entry_of(tail[tail.rfind(b"\n", 0, -1) + 1 :]), len(torn)
    except ValueError as error:
        raise AuditUnavailable(
            f"the last line of {path.name} does not hold ({error}); look with `mien audit verify`, "
            "and keep the file elsewhere: a new one begins where there is none"
        ) from error


def _holds(line: bytes) -> bool:
    return _entry_if_any(line) is not None


def _entry_if_any(line: bytes) -> Entry | None:
    try:
        return entry_of(line)
    except ValueError:
        return None


def _write(file: int, line: bytes) -> Entry:
    """The entry, once its line is on the disk; of one that cannot be written nothing stays."""
    size = os.fstat(file).st_size
    try:
        written = os.write(file, line)
        while written < len(line):
            written += os.write(file, line[written:])
        os.fsync(file)
    except OSError:
        with suppress(OSError):
            os.ftruncate(file, size)
        raise
    return entry_of(line)
