"""service/backup: what is in a backup, when it is one, and what bringing it back leaves alone."""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.backup import MANIFEST
from service.backup import restore as restoring
from service.backup import take as taking
from service.backup.restore import restore_backup
from service.backup.take import take_backup
from service.errors import BackupRefused, StorageUnavailable, TemplateKeysRefused
from service.gallery import DATA_KEYS_FILE_NAME, FILE_NAME, open_gallery
from service.gallery.contract import Galleries
from service.guard.audit import Audit, read_entries, verify
from service.settings import Settings
from tests.e2e.enroller import SPACE, Deed, deeds, embeddings_of, enroll
from tests.service.conftest import Mien
from tests.shared import REPOSITORY

PERSON = Deed("enroll", "key", "ada", 1)
MASTERS = {"first": bytes(range(32))}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def gallery(data: Path) -> Iterator[Galleries]:
    """A gallery that is open, with two faces of ada."""
    store = open_gallery(data)
    enroll(store, PERSON)
    yield store
    store.close()


def found_in(data: Path, deed: Deed = PERSON) -> str:
    """Who is most like a face of the deed, in the gallery of a data folder."""
    store = open_gallery(data)
    try:
        query = embeddings_of(deed)[:1]
        [[best, *_]] = store.search("default", space=SPACE, embeddings_ND=query, top_k=1)
        assert best.similarity == pytest.approx(1)
        return best.person_id
    finally:
        store.close()


def written(path: Path, text: str) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("name", ["backup", "backup.tar"])
@pytest.mark.usefixtures("gallery")
def test_a_backup_of_an_open_gallery_comes_back_as_it_was(
    data: Path, tmp_path: Path, name: str
) -> None:
    written(data / "calibrations" / "own.json", "{}")
    written(data / "keys.json", "[]")
    Audit(data / "audit.jsonl").record("me", "enroll")
    backup = take_backup(data, tmp_path / name)
    [facts] = backup.contents.galleries
    assert (facts.name, facts.space, facts.persons, facts.faces) == ("default", SPACE, 1, 2)
    assert backup.files == (FILE_NAME, "calibrations/own.json", "keys.json", "audit.jsonl")

    back = restore_backup(tmp_path / name, tmp_path / "new")
    assert back.contents == backup.contents
    assert (back.aside, back.stayed, back.keys_missing) == (None, (), False)
    assert found_in(tmp_path / "new") == "ada"
    assert sorted(os.listdir(tmp_path / "new" / "calibrations")) == ["own.json"]
    assert (tmp_path / "new" / "keys.json").read_text(encoding="utf-8") == "[]"
    assert verify(tmp_path / "new" / "audit.jsonl").entries == 1
    assert (tmp_path / "new" / FILE_NAME).stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o700


def test_a_backup_leaves_the_data_folder_as_it_is_and_says_what_it_left_out(
    gallery: Galleries, data: Path, tmp_path: Path
) -> None:
    written(data / "notes.txt", "mine")
    written(data / "keys.lock", "")
    before = {path.name: path.stat().st_mtime_ns for path in data.iterdir()}
    assert take_backup(data, tmp_path / "backup").left_out == ("notes.txt",)
    after = {path.name: path.stat().st_mtime_ns for path in data.iterdir()}
    assert {**after, f"{FILE_NAME}-shm": 0} == {**before, f"{FILE_NAME}-shm": 0}


def test_an_audit_log_that_is_being_written_is_copied_to_its_last_whole_line(
    gallery: Galleries, data: Path, tmp_path: Path
) -> None:
    log = data / "audit.jsonl"
    Audit(log).record("me", "enroll")
    with log.open("ab") as file:
        file.write(b'{"sequence": 2, "ti')
    take_backup(data, tmp_path / "backup")
    assert verify(tmp_path / "backup" / "audit.jsonl").flaw is None
    written(log, "{")
    take_backup(data, tmp_path / "other")
    assert (tmp_path / "other" / "audit.jsonl").read_bytes() == b""


def test_a_backup_has_no_byte_of_who_was_deleted(
    gallery: Galleries, data: Path, tmp_path: Path
) -> None:
    for deed in (Deed("enroll", f"key-{n}", f"person-{n}", n) for n in range(20)):
        enroll(gallery, deed)
    for n in range(20):
        gallery.delete_person("default", f"person-{n}")
    take_backup(data, tmp_path / "backup")
    copy = (tmp_path / "backup" / FILE_NAME).read_bytes()
    assert b"person-" not in copy
    gone = Deed("enroll", "key-3", "person-3", 3)
    assert embeddings_of(gone)[0].tobytes()[:64] not in copy


@pytest.mark.usefixtures("gallery")
def test_a_backup_that_is_cut_off_leaves_nothing_under_its_name(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(path: Path) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(taking, "digest_of", killed)
    with suppress(KeyboardInterrupt):
        take_backup(data, tmp_path / "backup")
    assert os.listdir(tmp_path) == ["data"]


@pytest.mark.usefixtures("gallery")
def test_a_damaged_gallery_makes_no_backup(data: Path, tmp_path: Path) -> None:
    with closing(sqlite3.connect(data / FILE_NAME)) as file:
        file.execute("PRAGMA foreign_keys = OFF")
        file.execute("UPDATE faces SET person = 99 WHERE number = 1")
        file.commit()
    with pytest.raises(StorageUnavailable, match="a row of faces lacks its persons"):
        take_backup(data, tmp_path / "backup")
    with closing(sqlite3.connect(data / FILE_NAME)) as file:
        file.execute("UPDATE faces SET person = 1 WHERE number = 1")
        file.execute("UPDATE galleries SET faces = 3")
        file.commit()
    with pytest.raises(StorageUnavailable, match="the counters of default are off"):
        take_backup(data, tmp_path / "backup")
    assert os.listdir(tmp_path) == ["data"]


@pytest.mark.usefixtures("gallery")
def test_what_cannot_be_backed_up_is_refused_with_the_reason(data: Path, tmp_path: Path) -> None:
    with pytest.raises(BackupRefused, match="there is nothing to back up"):
        take_backup(tmp_path / "nowhere", tmp_path / "backup")
    with pytest.raises(BackupRefused, match="nobody is sealed"):
        take_backup(data, tmp_path / "backup", data_keys=tmp_path / "keys")
    with pytest.raises(BackupRefused, match="no backup is overwritten"):
        take_backup(data, data)
    with pytest.raises(BackupRefused, match="there is no folder for it"):
        take_backup(data, tmp_path / "nowhere" / "backup")


# Bringing back.


@pytest.fixture
def backup(gallery: Galleries, data: Path, tmp_path: Path) -> Path:
    """A backup of ada, of whom the gallery, now closed, knows no more."""
    written(data / "keys.json", "[1]")
    path = take_backup(data, tmp_path / "backup").path
    gallery.delete_person("default", "ada")
    enroll(gallery, Deed("enroll", "other", "ben", 2))
    gallery.close()
    return path


def test_a_data_folder_that_is_not_empty_is_replaced_only_when_asked(
    backup: Path, data: Path
) -> None:
    with pytest.raises(BackupRefused, match="--replace puts aside"):
        restore_backup(backup, data)
    back = restore_backup(backup, data, replace=True)
    assert found_in(data) == "ada"
    assert back.aside is not None
    assert found_in(back.aside, Deed("enroll", "other", "ben", 2)) == "ben"
    assert restore_backup(backup, data, replace=True).aside != back.aside


def test_keys_and_an_audit_log_that_are_there_do_not_go_back_in_time(
    backup: Path, data: Path
) -> None:
    written(data / "keys.json", "[2]")
    Audit(data / "audit.jsonl").record("me", "key.revoke")
    back = restore_backup(backup, data, replace=True)
    assert back.stayed == ("audit.jsonl", "keys.json")
    assert (data / "keys.json").read_text(encoding="utf-8") == "[2]"
    assert verify(data / "audit.jsonl").entries == 1


def test_files_of_the_audit_log_that_were_put_aside_stay_with_it(
    gallery: Galleries, data: Path, tmp_path: Path
) -> None:
    """Also where nothing was recorded since: a log of the backup's would begin it again."""
    log = data / "audit.jsonl"
    Audit(log).record("me", "enroll")
    backup = take_backup(data, tmp_path / "backup").path
    gallery.close()
    Audit(log).record("me", "key.revoke")
    log.rename(log.with_name("audit-1.jsonl"))
    before = [entry.sequence for entry in read_entries(log)]
    assert "audit.jsonl" in restore_backup(backup, data, replace=True).stayed
    assert [entry.sequence for entry in read_entries(log)] == before
    Audit(log).record("me", "restore")
    assert verify(log).flaw is None


def test_a_folder_that_is_served_is_left_alone(backup: Path, data: Path) -> None:
    served = open_gallery(data)
    try:
        elsewhere = [sys.executable, "-c", "from service.cli import app; app()", "restore"]
        words = [*elsewhere, str(backup), "--data", str(data), "--replace"]
        done = subprocess.run(words, cwd=REPOSITORY, capture_output=True, text=True, check=False)
        assert done.returncode == 2
        assert "another process has it open" in done.stderr
        served.get_person("default", "ben")
    finally:
        served.close()


def test_who_comes_while_a_backup_is_brought_back_waits_and_serves_what_was(
    backup: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else it would write to the file that was put aside, and into the log of the new one."""
    last = Deed("enroll", "another", "cleo", 7)
    came, pause, stage = threading.Event(), time.sleep, restoring._staged

    def waits(pause_s: float) -> None:
        came.set()
        pause(pause_s)

    def starts() -> Galleries:
        try:
            return open_gallery(data)
        finally:
            came.set()

    with ThreadPoolExecutor(1) as server, monkeypatch.context() as patched:
        starting = []

        def staged_while_one_starts(*given: Any) -> Path:
            starting.append(server.submit(starts))
            assert came.wait(30)
            return stage(*given)

        patched.setattr(time, "sleep", waits)
        patched.setattr(restoring, "_staged", staged_while_one_starts)
        aside = restore_backup(backup, data, replace=True).aside
        store = starting[0].result(30)
    enroll(store, last)
    store.close()
    assert found_in(data) == "ada"
    assert found_in(data, last) == "cleo"
    assert aside is not None
    with closing(sqlite3.connect(aside / FILE_NAME)) as before:
        assert before.execute("SELECT count(*) FROM persons").fetchone() == (1,)


def test_a_damaged_data_folder_is_replaced(backup: Path, data: Path) -> None:
    written(data / FILE_NAME, "no database")
    restore_backup(backup, data, replace=True)
    assert found_in(data) == "ada"


@pytest.mark.parametrize("packed", [False, True])
def test_a_backup_whose_bytes_differ_is_refused_and_nothing_is_touched(
    backup: Path, data: Path, tmp_path: Path, packed: bool
) -> None:
    content = bytearray((backup / FILE_NAME).read_bytes())
    content[5000] ^= 1
    (backup / FILE_NAME).write_bytes(content)
    if packed:
        with tarfile.open(tmp_path / "packed.tar", "w") as tar:
            tar.add(backup, ".")
            for path in backup.rglob("*"):
                tar.add(path, path.relative_to(backup), recursive=False)
        backup = tmp_path / "packed.tar"
    before = sorted(os.listdir(data))
    with pytest.raises(BackupRefused, match=rf"{FILE_NAME} has the sha256"):
        restore_backup(backup, data, replace=True)
    assert sorted(os.listdir(data)) == before
    assert found_in(data, Deed("enroll", "other", "ben", 2)) == "ben"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"schema": 1000}, "schema 1000"),
        ({"format": 2}, "format 2"),
        ({"files": {"../evil": {"sha256": "0", "bytes": 0}}}, "names '../evil'"),
        ({"files": {FILE_NAME: {"sha256": "0"}, "../evil": {"sha256": ""}}}, "names '../evil'"),
        ({"files": {}}, f"names no {FILE_NAME}"),
        ({"files": {FILE_NAME: "x"}}, "is none"),
        ({"made": None, "schema": "3"}, "is none"),
    ],
)
def test_a_backup_of_another_kind_is_refused(
    backup: Path, tmp_path: Path, changes: dict[str, object], reason: str
) -> None:
    manifest = json.loads((backup / MANIFEST).read_bytes())
    (backup / MANIFEST).write_text(json.dumps({**manifest, **changes}), encoding="utf-8")
    with pytest.raises(BackupRefused, match=reason):
        restore_backup(backup, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_what_is_no_backup_is_refused(backup: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(BackupRefused, match=rf"it has no {MANIFEST}"):
        restore_backup(tmp_path / "empty", tmp_path / "new")
    with pytest.raises(BackupRefused, match="cannot be read as a backup"):
        restore_backup(written(tmp_path / "text.tar", "text"), tmp_path / "new")
    (backup / "keys.json").unlink()
    with pytest.raises(BackupRefused, match=r"it has no keys\.json"):
        restore_backup(backup, tmp_path / "new")
    assert os.listdir(tmp_path / "new") == []


@pytest.mark.parametrize("part", [0.01, 0.5, 0.9])
@pytest.mark.usefixtures("gallery")
def test_a_tar_that_was_cut_off_is_refused(data: Path, tmp_path: Path, part: float) -> None:
    whole = take_backup(data, tmp_path / "backup.tar").path.read_bytes()
    (tmp_path / "cut.tar").write_bytes(whole[: round(part * len(whole))])
    with pytest.raises(BackupRefused, match=r"cut\.tar: it is cut off, or damaged"):
        restore_backup(tmp_path / "cut.tar", tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("steps", range(6))
def test_a_restoration_that_is_cut_off_leaves_the_gallery_and_its_log_in_one_place(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    store = open_gallery(data)
    backup = take_backup(data, tmp_path / "backup").path
    enroll(store, PERSON)
    killed = {path.name: path.read_bytes() for path in data.iterdir()}  # ada is in the log alone
    store.close()
    shutil.rmtree(data)
    data.mkdir()
    for name, content in killed.items():
        (data / name).write_bytes(content)
    done = []

    def counted(call: Callable[..., None]) -> Callable[..., None]:
        def one_more(*given: Any, **named: Any) -> None:
            if len(done) == steps:
                raise KeyboardInterrupt
            done.append(given)
            call(*given, **named)

        return one_more

    with monkeypatch.context() as broken:
        for name in ("rename", "link", "unlink"):
            broken.setattr(restoring.os, name, counted(getattr(os, name)))
        with suppress(KeyboardInterrupt):
            restore_backup(backup, data, replace=True)
    places = [data, *data.glob("before-restore-*")]
    whole = [place for place in places if {FILE_NAME, f"{FILE_NAME}-wal"} <= set(os.listdir(place))]
    assert "ada" in [found_in(place) for place in whole]


# Sealed galleries.


@pytest.fixture
def sealed(data: Path) -> Path:
    """A data folder with ada and ben, sealed."""
    store = open_gallery(data, masters=lambda: MASTERS)
    enroll(store, PERSON)
    enroll(store, Deed("enroll", "other", "ben", 2))
    store.close()
    return data


def persons_of(data: Path) -> list[str]:
    store = open_gallery(data, masters=lambda: MASTERS)
    try:
        return sorted(person.id for person in store.list_persons("default").items)
    finally:
        store.close()


def test_data_keys_are_no_part_of_a_backup(sealed: Path, tmp_path: Path) -> None:
    backup = take_backup(sealed, tmp_path / "backup")
    assert (backup.contents.sealed, backup.left_out) == (2, (DATA_KEYS_FILE_NAME,))
    back = restore_backup(backup.path, tmp_path / "new")
    assert back.keys_missing
    with pytest.raises(TemplateKeysRefused, match="the data keys of 2 persons are missing"):
        persons_of(tmp_path / "new")


def test_data_keys_that_were_copied_apart_bring_sealed_persons_back(
    sealed: Path, tmp_path: Path
) -> None:
    keys = tmp_path / "safe.sqlite3"
    backup = take_backup(sealed, tmp_path / "backup", data_keys=keys)
    back = restore_backup(backup.path, tmp_path / "new", data_keys=keys)
    assert not back.keys_missing
    assert persons_of(tmp_path / "new") == ["ada", "ben"]
    with pytest.raises(BackupRefused, match="may have been erased since"):
        restore_backup(backup.path, tmp_path / "new", replace=True, data_keys=keys)


def test_the_log_of_data_keys_that_are_gone_is_put_aside_with_the_rest(
    sealed: Path, tmp_path: Path
) -> None:
    keys = tmp_path / "safe.sqlite3"
    backup = take_backup(sealed, tmp_path / "backup", data_keys=keys)
    (sealed / DATA_KEYS_FILE_NAME).unlink()
    written(sealed / f"{DATA_KEYS_FILE_NAME}-wal", "of another file")
    back = restore_backup(backup.path, sealed, replace=True, data_keys=keys)
    assert back.aside is not None
    assert (back.aside / f"{DATA_KEYS_FILE_NAME}-wal").exists()
    assert persons_of(sealed) == ["ada", "ben"]


def test_data_keys_are_not_copied_to_the_backup_s_own_name(sealed: Path, tmp_path: Path) -> None:
    with pytest.raises(BackupRefused, match="apart from the backup"):
        take_backup(sealed, tmp_path / "one.tar", data_keys=tmp_path / "one.tar")
    assert os.listdir(tmp_path) == ["data"]


def test_who_was_erased_since_does_not_come_back_with_a_backup(
    sealed: Path, tmp_path: Path
) -> None:
    backup = take_backup(sealed, tmp_path / "backup")
    store = open_gallery(sealed, masters=lambda: MASTERS)
    store.delete_person("default", "ada")
    store.close()
    back = restore_backup(backup.path, sealed, replace=True)
    assert (back.contents.galleries[0].persons, back.erased_since) == (2, 1)
    assert persons_of(sealed) == ["ben"]


# The commands.


def test_the_commands_say_what_they_did(
    mien: Mien, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_gallery(settings.data)
    enroll(store, PERSON)
    store.close()
    taken = mien("backup", tmp_path / "backup.tar")
    assert taken.exit_code == 0, taken.output
    assert "1 persons with 2 faces in 1 galleries" in taken.stdout
    again = mien("backup", tmp_path / "backup.tar")
    assert (again.exit_code, again.stdout) == (2, "")
    assert "no backup is overwritten" in again.stderr

    refused = mien("restore", tmp_path / "backup.tar")
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert "is not empty" in refused.stderr
    back = json.loads(mien("restore", tmp_path / "backup.tar", "--replace", "--json").stdout)
    assert back["contents"]["galleries"][0]["persons"] == 1
    shutil.rmtree(settings.data)
    table = mien("restore", tmp_path / "backup.tar")
    assert table.exit_code == 0, table.output
    assert "1 persons with 2 faces" in table.stdout
    assert found_in(settings.data) == "ada"


def test_a_data_folder_with_an_audit_log_has_backups_and_restorations_in_it(
    mien: Mien, settings: Settings, tmp_path: Path
) -> None:
    open_gallery(settings.data).close()
    log = settings.data / "audit.jsonl"
    assert mien("backup", tmp_path / "first").exit_code == 0
    assert not log.exists()  # there is none where nothing is recorded
    Audit(log).record("me", "enroll")
    assert mien("backup", tmp_path / "second").exit_code == 0
    assert mien("restore", tmp_path / "second", "--replace").exit_code == 0
    entries = list(read_entries(log))
    assert [entry.action for entry in entries] == ["enroll", "backup", "restore"]
    assert entries[1].actor.startswith("cli:")
    assert entries[1].what == {"data_keys": False, "galleries": 1, "persons": 0, "faces": 0}
    assert verify(log).flaw is None


def test_a_larger_gallery_is_backed_up_whole(data: Path, tmp_path: Path) -> None:
    store = open_gallery(data)
    for deed in (one for one, _ in zip(deeds(1), range(60), strict=False)):
        if deed.verb == "enroll":
            enroll(store, deed)
    backup = take_backup(data, tmp_path / "backup")
    record = store.get_gallery("default")
    store.close()
    [facts] = backup.contents.galleries
    assert (facts.persons, facts.faces) == (record.persons, record.faces)
    assert facts.revision == record.revision
    assert np.isclose(backup.size_bytes, sum(p.stat().st_size for p in walk(backup.path)))


def walk(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file())
