"""service/gallery on SQLite: the contract's suite, and what is SQLite's own."""

import fcntl
import os
import random
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.errors import ErasureIncomplete, MienError, StorageFull, StorageUnavailable
from service.gallery import FILE_NAME, changelog, open_gallery, sqlite, turns
from service.gallery.contract import Candidate, Galleries, Idempotency
from service.gallery.index import Hit
from service.gallery.schema import SCHEMA
from service.gallery.sqlite import SqliteFile
from service.gallery.store import Store
from tests.service.gallery_contract import (
    SPACE,
    SPAWN,
    GalleryContract,
    Opener,
    enroll,
    search,
    units,
)
from tests.service.old_store import write_old_store

REPOSITORY = Path(__file__).resolve().parents[2]


class TestSqliteKeepsTheContract(GalleryContract):
    @pytest.fixture
    def opener(self, tmp_path: Path) -> Opener:
        return partial(open_gallery, tmp_path / "data")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def gallery(folder: Path) -> Iterator[Galleries]:
    opened = open_gallery(folder, patience_s=0.2)
    yield opened
    opened.close()


def raw_files(folder: Path) -> bytes:
    """The bytes of all files, read by another process.

    To close the database here would drop the locks that this process's connections hold on it.
    """
    return b"".join(subprocess.check_output(["cat", str(file)]) for file in folder.iterdir())


def is_in(embedding: np.ndarray, raw: bytes) -> bool:
    """Whether any 16 bytes of it, in three places, are there."""
    blob = embedding.astype("<f4").tobytes()
    return any(blob[at : at + 16] in raw for at in (0, 1000, len(blob) - 16))


# What was deleted is gone from the files.


@pytest.mark.parametrize("what", ["face", "person", "gallery"])
def test_a_deleted_embedding_is_in_no_file_when_the_call_returns(
    folder: Path, gallery: Galleries, what: str
) -> None:
    gone, kept = units(2, 0)
    gallery.create_gallery("guests")
    once = Idempotency("key", "print")  # what was answered names her too
    (face,) = enroll(gallery, "ada-of-the-files", gone, into="guests", idempotency=once)
    enroll(gallery, "bob", kept)
    assert search(gallery, gone, into="guests")[0]  # a reader has been here
    assert is_in(gone, raw_files(folder))
    if what == "face":
        gallery.delete_face("guests", "ada-of-the-files", face)
    elif what == "person":
        gallery.delete_person("guests", "ada-of-the-files")
    else:
        gallery.delete_gallery("guests")
    raw = raw_files(folder)
    assert not is_in(gone, raw)
    assert is_in(kept, raw)
    assert (b"ada-of-the-files" in raw) == (what == "face")


def test_nothing_that_tells_of_a_deleted_person_is_in_a_file_after_a_long_life(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fast = [pragma.replace("FULL", "OFF") for pragma in sqlite.PRAGMAS]
    monkeypatch.setattr(sqlite, "PRAGMAS", fast)  # it is the bytes that count here
    monkeypatch.setattr(sqlite, "_sync", lambda path: None)
    gallery = open_gallery(folder)
    rng, embeddings = random.Random(1), units(700, 1)  # with plain rows, three are found
    there: dict[str, int] = {}  # texts begin with a person's id, by which they are found
    gone: dict[str, int] = {}
    for n, embedding in enumerate(embeddings):
        person_id = f"{rng.getrandbits(128):032x}"
        there[person_id] = n
        enroll(
            gallery,
            person_id,
            embedding,
            name=f"{person_id} by name",
            metadata={f"{person_id} in metadata": "x" * rng.randrange(400)},
            idempotency=Idempotency(f"key {n}", "print"),  # what was answered names them too
        )
        if n % 4 == 0:
            gallery.update_person("default", person_id, name=person_id * rng.randrange(1, 5))
        if rng.random() < 0.4:
            gone_id = rng.choice(list(there))
            gone[gone_id] = there.pop(gone_id)
            gallery.delete_person("default", gone_id)
    raw = raw_files(folder)
    gallery.close()
    assert len(gone) > 200
    assert [i for i, n in gone.items() if i.encode() in raw or is_in(embeddings[n], raw)] == []
    assert all(i.encode() in raw and is_in(embeddings[n], raw) for i, n in there.items())


def test_a_reader_elsewhere_delays_the_wiping_and_the_caller_is_told(
    folder: Path, gallery: Galleries
) -> None:
    gone, kept = units(2, 2)
    enroll(gallery, "ada", gone)
    enroll(gallery, "bob", kept)
    with closing(sqlite3.connect(folder / FILE_NAME, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM faces").fetchall()
        with pytest.raises(ErasureIncomplete, match="deleted and found no more"):
            gallery.delete_person("default", "ada")
        assert [c.person_id for c in search(gallery, gone)[0]] == ["bob"]
        assert is_in(gone, raw_files(folder))
        gallery.create_person("default", person_id="eve")  # cannot wipe either, and does not mind
        reader.execute("ROLLBACK")
    gallery.create_person("default", person_id="dan")
    assert not is_in(gone, raw_files(folder))


def test_others_write_while_an_erasure_waits_for_a_reader_that_stays(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (gone,) = units(1, 15)
    erasing, other = open_gallery(folder, patience_s=60), open_gallery(folder)
    enroll(erasing, "ada", gone)
    begun, emptied = threading.Event(), SqliteFile._emptied

    def begins(file: SqliteFile, *given: Any) -> bool:
        begun.set()
        return emptied(file, *given)

    with (
        closing(sqlite3.connect(folder / FILE_NAME, isolation_level=None)) as reader,
        ThreadPoolExecutor(1) as thread,
    ):
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM faces").fetchall()
        monkeypatch.setattr(SqliteFile, "_emptied", begins)
        erasure = thread.submit(erasing.delete_person, "default", "ada")
        try:
            assert begun.wait(60)
            other.create_person("default", person_id="eve")
            other.create_person("default", person_id="dan")
            assert not erasure.done()
        finally:
            reader.execute("ROLLBACK")
        assert erasure.result(60).incomplete is None
    assert not is_in(gone, raw_files(folder))
    other.close()
    erasing.close()


def test_what_a_killed_process_did_not_wipe_is_wiped_at_the_next_start(folder: Path) -> None:
    (gone,) = units(1, 3)
    gallery = open_gallery(folder, patience_s=0.05)
    enroll(gallery, "ada", gone)
    reader = sqlite3.connect(folder / FILE_NAME, isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM faces").fetchall()
    with pytest.raises(ErasureIncomplete):
        gallery.delete_person("default", "ada")
    reader.execute("ROLLBACK")
    assert is_in(gone, raw_files(folder))  # and `gallery` never does anything again
    open_gallery(folder).close()
    assert not is_in(gone, raw_files(folder))
    reader.close()
    gallery.close()


MOVING_THE_LOG = """
import fcntl, sys
with open(sys.argv[1], "r+b") as shared_index:
    fcntl.lockf(shared_index, fcntl.LOCK_EX, 1, 121)  # SQLite's WAL_CKPT_LOCK
    print("locked", flush=True)
    sys.stdin.read()
"""


def test_wiping_waits_for_another_program_that_is_moving_the_log_itself(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (gone,) = units(1, 13)
    gallery = open_gallery(folder, patience_s=60)
    enroll(gallery, "ada", gone)
    command = [sys.executable, "-c", MOVING_THE_LOG, str(folder / f"{FILE_NAME}-shm")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"locked\n"
        waits = []

        def let_the_other_finish(wait_s: float) -> None:
            waits.append(wait_s)
            other.communicate()

        monkeypatch.setattr(sqlite.time, "sleep", let_the_other_finish)
        gallery.delete_person("default", "ada")
    assert waits == [turns.RETRY_S]
    assert not is_in(gone, raw_files(folder))
    gallery.close()


def test_the_slots_of_deleted_faces_are_used_again(folder: Path, gallery: Galleries) -> None:
    def life(n: int) -> int:
        enroll(gallery, f"p{n}", *units(100, n))
        gallery.delete_person("default", f"p{n}")
        return (folder / FILE_NAME).stat().st_size

    first = life(0)
    assert {life(n) for n in range(1, 4)} == {first}


# What goes wrong with the file is told as a storage error.


def test_a_file_that_is_no_database_stops_the_opening(folder: Path) -> None:
    folder.mkdir()
    (folder / FILE_NAME).write_bytes(b"not a database " * 1000)
    with pytest.raises(StorageUnavailable, match="no database"):
        open_gallery(folder)


def test_a_file_of_a_newer_schema_stops_the_opening(folder: Path) -> None:
    open_gallery(folder).close()
    with closing(sqlite3.connect(folder / FILE_NAME)) as file:
        file.execute("PRAGMA user_version = 99")
    with pytest.raises(StorageUnavailable, match="newer Mien"):
        open_gallery(folder)


@pytest.mark.parametrize("version", range(1, len(SCHEMA)))
def test_a_file_of_an_older_schema_goes_on_with_all_that_it_holds(
    folder: Path, version: int
) -> None:
    a, b = units(2, 14)
    write_old_store(folder, version, a)
    for _ in range(2):  # the second time there is nothing to bring up
        gallery = open_gallery(folder)
        assert [(c.person_id, c.name) for c in search(gallery, a)[0]] == [("ada", "Ada")]
        record = gallery.get_gallery("default")
        assert (record.space, record.calibration, record.faces) == (SPACE, None, 1)
        assert (record.retention_days, record.requires_consent) == (None, False)
        person = gallery.get_person("default", "ada")
        assert (person.metadata, person.consent, person.expires) == ({"n": 1}, None, None)
        assert gallery.answered("default", Idempotency("key", "print")) == b"as it was answered"
        gallery.close()
    gallery = open_gallery(folder)
    assert gallery.update_gallery("default", calibration="staff").calibration == "staff"
    assert gallery.update_person("default", "ada", name="Ada L.").metadata == {"n": 1}
    enroll(gallery, "bob", b)
    assert gallery.persons_in("default") == 2
    gallery.close()


def test_a_folder_that_cannot_be_made_stops_the_opening(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageUnavailable, match="file"):
        open_gallery(tmp_path / "file" / "data")


def test_a_damaged_file_is_told_and_named_by_check(folder: Path, gallery: Galleries) -> None:
    enroll(gallery, "ada", units(1, 4)[0])
    gallery.close()
    size = (folder / FILE_NAME).stat().st_size
    with (folder / FILE_NAME).open("r+b") as file:
        file.seek(sqlite.PAGE_BYTES)  # behind the first page, which holds the schema
        file.write(os.urandom(size - sqlite.PAGE_BYTES))
    damaged = open_gallery(folder, patience_s=0.2)
    assert damaged.check() == [f"{FILE_NAME} is damaged; bring back a backup (docs/backup.md)"]
    with pytest.raises(StorageUnavailable, match="damaged"):
        damaged.get_gallery("default")
    damaged.close()


def test_check_tells_when_the_file_is_gone(folder: Path, gallery: Galleries) -> None:
    assert gallery.check() == []
    (folder / FILE_NAME).rename(folder / "elsewhere")
    assert gallery.check() == [f"{FILE_NAME} is gone from its folder"]


@pytest.mark.parametrize("by", [None, "another file"])
def test_nothing_is_acknowledged_that_went_into_a_file_which_is_gone(
    folder: Path, gallery: Galleries, by: str | None
) -> None:
    a, b = units(2, 15)
    enroll(gallery, "ada", a)
    (folder / FILE_NAME).rename(folder / "elsewhere")
    if by is not None:
        (folder / FILE_NAME).write_bytes((folder / "elsewhere").read_bytes())
    reason = f"{FILE_NAME} is {by or 'gone from its folder'}"
    with pytest.raises(StorageUnavailable, match=reason):
        enroll(gallery, "bob", b)
    [told] = gallery.check()
    assert told.startswith(reason)
    (folder / "elsewhere").rename(folder / FILE_NAME)
    assert gallery.check() == []
    assert gallery.persons_in("default") == 1
    enroll(gallery, "bob", b)


def test_a_lock_that_is_never_let_go_refuses_writes_and_hinders_no_reading(
    folder: Path, gallery: Galleries
) -> None:
    (embedding,) = units(1, 5)
    enroll(gallery, "ada", embedding)
    with closing(sqlite3.connect(folder / FILE_NAME, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StorageUnavailable, match="locked"):
            enroll(gallery, "bob", embedding)
        assert gallery.check() != []
        assert [c.person_id for c in search(gallery, embedding)[0]] == ["ada"]
        other.execute("ROLLBACK")
    assert gallery.check() == []
    enroll(gallery, "bob", embedding)


def test_nobody_writes_while_the_log_is_moved_and_the_other_way_round(
    folder: Path, gallery: Galleries
) -> None:
    assert isinstance(gallery, Store)
    heard: dict[str, set[bool]] = {}

    def others_are_kept_out(statement: str) -> None:
        with (folder / f"{FILE_NAME}-turn").open() as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                heard.setdefault(statement.split()[0], set()).add(True)
            else:
                heard.setdefault(statement.split()[0], set()).add(False)

    gallery._file._writer.set_trace_callback(others_are_kept_out)
    enroll(gallery, "ada", units(1, 14)[0])
    gallery.delete_person("default", "ada")
    gallery._file._writer.set_trace_callback(None)
    assert {"BEGIN", "INSERT", "DELETE", "COMMIT", "PRAGMA"} <= set(heard)
    assert set.union(*heard.values()) == {True}
    with (folder / f"{FILE_NAME}-turn").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # and the turn is given back
        with pytest.raises(StorageUnavailable, match="another process"):
            gallery.create_person("default")
    gallery.create_person("default")


def test_a_closed_gallery_is_unavailable(folder: Path) -> None:
    gallery = open_gallery(folder)
    gallery.get_gallery("default")
    gallery.close()
    gallery.close()
    with pytest.raises(StorageUnavailable, match="closed"):
        gallery.get_gallery("default")
    with pytest.raises(StorageUnavailable, match="closed"):
        gallery.create_person("default")
    assert gallery.check() != []


@pytest.mark.parametrize(
    ("code", "told"),
    [
        (sqlite3.SQLITE_FULL, StorageFull),
        (sqlite3.SQLITE_IOERR_WRITE, StorageUnavailable),
        (sqlite3.SQLITE_BUSY_SNAPSHOT, StorageUnavailable),
        (sqlite3.SQLITE_READONLY_DBMOVED, StorageUnavailable),
        (sqlite3.SQLITE_CORRUPT_VTAB, StorageUnavailable),
        (sqlite3.SQLITE_MISUSE, StorageUnavailable),
        (None, StorageUnavailable),
    ],
)
def test_every_error_of_sqlite_is_a_storage_error(
    folder: Path, gallery: Galleries, code: int | None, told: type[MienError]
) -> None:
    error = sqlite3.OperationalError("as SQLite raises it")
    if code is not None:
        error.sqlite_errorcode, error.sqlite_errorname = code, "SQLITE_NAME"
    file = SqliteFile(folder / FILE_NAME, patience_s=0.2)
    for block in (file.read, file.write):
        with pytest.raises(told), block():
            raise error
    with file.write() as db:  # the file serves on
        db.execute("UPDATE galleries SET space = 'x'")
    file.close()


def test_an_io_error_on_a_nearly_full_disk_is_a_full_disk(
    folder: Path, gallery: Galleries, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = sqlite3.OperationalError("disk I/O error")
    error.sqlite_errorcode = sqlite3.SQLITE_IOERR_SHMSIZE
    monkeypatch.setattr(sqlite, "NEARLY_FULL_BYTES", 2**62)
    file = SqliteFile(folder / FILE_NAME, patience_s=0.2)
    with pytest.raises(StorageFull), file.read():
        raise error
    file.close()


# How it lies on the disk.


def test_a_commit_is_synced_and_deleted_content_overwritten(folder: Path) -> None:
    folder.mkdir()
    file = SqliteFile(folder / FILE_NAME, patience_s=0.2)
    expected = {"journal_mode": "wal", "synchronous": 2, "secure_delete": 1, "foreign_keys": 1}
    with file.read() as reader, file.write() as writer:
        for db in (reader, writer):
            told = {name: db.execute(f"PRAGMA {name}").fetchone()[0] for name in expected}
            assert told == expected
    file.close()


def test_the_files_are_the_owners_alone(folder: Path, gallery: Galleries) -> None:
    enroll(gallery, "ada", units(1, 6)[0])
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    modes = {stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()}
    assert (len(list(folder.iterdir())), modes) == (5, {0o600})


# Keys, the change log, processes.


def test_a_key_is_kept_for_a_day_and_then_forgotten(folder: Path) -> None:
    folder.mkdir()
    clock = [1_000_000.0]
    gallery = Store(folder / FILE_NAME, search_threads=1, patience_s=0.2, now=lambda: clock[0])
    once = Idempotency("key", "print")
    a, b = units(2, 7)
    enroll(gallery, "ada", a, idempotency=once)
    clock[0] += 24 * 3600
    enroll(gallery, "bob", b)
    assert gallery.answered("default", once) is not None
    clock[0] += 2 * 3600
    enroll(gallery, "bob", b)
    assert gallery.answered("default", once) is None
    gallery.close()
    owners = ("faces", "persons", "free_slots")
    owned = " UNION ".join(f"SELECT slot FROM {table}" for table in owners)
    with closing(sqlite3.connect(folder / FILE_NAME)) as file:  # and its room is free
        lost = file.execute(f"SELECT slot FROM slots WHERE slot NOT IN ({owned})")
        assert lost.fetchall() == []


@pytest.mark.parametrize("behind", [2, 3, 4, 9])
def test_an_index_left_behind_by_the_change_log_is_built_anew(
    folder: Path, gallery: Galleries, monkeypatch: pytest.MonkeyPatch, behind: int
) -> None:
    monkeypatch.setattr(changelog, "REVISIONS_KEPT", 3)
    neighbour = open_gallery(folder)
    embeddings = units(20, 8)
    faces = [enroll(gallery, f"p{n}", embedding)[0] for n, embedding in enumerate(embeddings[:10])]
    assert len(search(neighbour, embeddings[0], top_k=50)[0]) == 10
    for n in range(behind):
        if n % 2:
            enroll(gallery, f"p{10 + n}", embeddings[10 + n])
        else:
            gallery.delete_face("default", f"p{n}", faces[n])
    expected = search(open_and_closed := open_gallery(folder), *embeddings, top_k=50)
    assert search(neighbour, *embeddings, top_k=50) == expected
    assert search(gallery, *embeddings, top_k=50) == expected
    assert {c.person_id for c in expected[0]} == {
        f"p{n}" for n in range(10) if n >= behind or n % 2
    } | {f"p{10 + n}" for n in range(behind) if n % 2}
    open_and_closed.close()
    neighbour.close()


def test_who_is_deleted_while_a_search_runs_is_not_in_its_answer(
    gallery: Galleries, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = units(2, 9)
    enroll(gallery, "ada", a)
    enroll(gallery, "bob", b)
    read = changelog.Truth.candidates

    def after_a_deletion(truth: changelog.Truth, hits: list[Hit]) -> list[Candidate] | None:
        if gallery.persons_in("default") == 2:
            gallery.delete_person("default", "ada")
        return read(truth, hits)

    monkeypatch.setattr(changelog.Truth, "candidates", after_a_deletion)
    assert [[c.person_id for c in found] for found in search(gallery, a, b, top_k=1)] == [
        ["bob"],
        ["bob"],
    ]


def test_many_processes_may_make_the_file_at_once(folder: Path) -> None:
    with SPAWN.Pool(4) as pool:
        assert pool.map(_persons_after_one_more, [(folder, n) for n in range(12)], 1)
    assert open_gallery(folder).persons_in("default") == 12


def _persons_after_one_more(given: tuple[Path, int]) -> int:
    """Run in a process of its own."""
    folder, n = given
    gallery = open_gallery(folder)
    enroll(gallery, f"p{n}", units(1, n)[0])
    persons = gallery.persons_in("default")
    gallery.close()
    return persons


FORKING = """
import os, sys
from pathlib import Path
from service.errors import StorageUnavailable
from service.gallery import open_gallery
from tests.service.gallery_contract import enroll, search, units

a, b = units(2, 10)
gallery = open_gallery(Path(sys.argv[1]))
enroll(gallery, "ada", a)
search(gallery, a)
child = os.fork()
if child == 0:
    verbs = [lambda: enroll(gallery, "bob", b), lambda: search(gallery, a), gallery.warm_up]
    for verb in verbs:
        try:
            verb()
        except StorageUnavailable as error:
            assert "forked" in str(error)
        else:
            sys.exit("a child was let in")
    assert gallery.check() != []
    gallery.close()
    sys.exit(0)
assert os.waitpid(child, 0)[1] == 0
enroll(gallery, "eve", b)
assert [c.person_id for c in search(gallery, b)[0]] == ["eve", "ada"]
gallery.close()
"""


def test_a_forked_child_is_refused_and_harms_no_one(folder: Path) -> None:
    quiet = [
        sys.executable,
        "-W",
        "ignore::DeprecationWarning",
    ]  # that a process with threads forks
    subprocess.run([*quiet, "-c", FORKING, str(folder)], cwd=REPOSITORY, check=True)
    with closing(sqlite3.connect(folder / FILE_NAME)) as file:
        assert file.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert file.execute("SELECT count(*) FROM faces").fetchone() == (2,)


def test_deleting_takes_the_embedding_out_of_this_processs_memory(gallery: Galleries) -> None:
    assert isinstance(gallery, Store)
    gone, kept = units(2, 11)
    enroll(gallery, "ada", gone)
    enroll(gallery, "bob", kept)
    search(gallery, gone)
    (followed,) = gallery._live._followed.values()
    gallery.delete_person("default", "ada")
    assert len(followed.index) == 1
    assert not is_in(gone, followed.index._matrix_RD.tobytes())
    gallery.delete_gallery("default")
    assert gallery._live._followed == {}


def test_an_index_of_a_gallery_deleted_elsewhere_is_let_go_with_the_next_search(
    folder: Path, gallery: Galleries
) -> None:
    neighbour = open_gallery(folder)
    assert isinstance(neighbour, Store)
    (embedding,) = units(1, 12)
    gallery.create_gallery("guests")
    enroll(gallery, "ada", embedding, into="guests")
    search(neighbour, embedding, into="guests")
    gallery.delete_gallery("guests")
    neighbour.search("default", space=SPACE, embeddings_ND=embedding[None], top_k=1)
    names = [followed.index for followed in neighbour._live._followed.values()]
    assert [len(index) for index in names] == [0]
    neighbour.close()
