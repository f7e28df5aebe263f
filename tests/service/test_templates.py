"""Templates at rest: who is sealed cannot be read, moved or brought back once they are erased."""

import base64
import fcntl
import json
import multiprocessing
import os
import sqlite3
import stat
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.errors import StorageUnavailable, TemplateKeysRefused
from service.gallery import (
    DATA_KEYS_FILE_NAME,
    FILE_NAME,
    datakeys,
    keeping,
    open_gallery,
    people,
    vault,
)
from service.gallery.contract import (
    DELETED,
    KEY_ERASED,
    LOG_TRUNCATED,
    OVERWRITTEN,
    Galleries,
    Idempotency,
    NewFace,
)
from service.gallery.datakeys import DataKeys
from service.gallery.sealed import MasterKeys
from service.gallery.store import Store
from service.guard.templates import TemplateKeyFile, add_template_key, read_template_keys
from tests.service.gallery_contract import (
    SPACE,
    GalleryContract,
    Opener,
    enroll,
    search,
    units,
)
from tests.service.old_store import write_old_store
from tests.service.test_gallery_sqlite import is_in, raw_files

FORK = multiprocessing.get_context("fork")
ONE = {"first": bytes(range(32))}
CONSENT = {"basis": "explicit-consent", "time": "2026-01-31T09:30:00Z", "reference": "form-of-ada"}


class TestASealedStoreKeepsTheContract(GalleryContract):
    @pytest.fixture
    def opener(self, tmp_path: Path) -> Opener:
        return partial(open_gallery, tmp_path / "data", masters=partial(dict, ONE))

    @pytest.mark.slow
    def test_threads_that_enroll_delete_and_search_never_see_a_wrong_answer(
        self, gallery: Galleries, neighbour: Galleries
    ) -> None:
        super().test_threads_that_enroll_delete_and_search_never_see_a_wrong_answer(
            gallery, neighbour
        )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "data"


def opened(folder: Path, masters: dict[str, bytes] = ONE) -> Galleries:
    return open_gallery(folder, patience_s=0.5, masters=lambda: masters)


@pytest.fixture
def gallery(folder: Path) -> Iterator[Galleries]:
    gallery = opened(folder)
    yield gallery
    gallery.close()


def enroll_ada(gallery: Galleries, embedding: np.ndarray) -> None:
    """Somebody of whom everything is known that can be."""
    once = Idempotency("key", "print")
    told = {"metadata": {"of": "ada-by-metadata"}, "consent": CONSENT, "idempotency": once}
    enroll(gallery, "ada-by-id", embedding, name="Ada by name", **told)


TELLING = [b"ada-by-id", b"Ada by name", b"ada-by-metadata", b"form-of-ada"]


def wrapped_keys(folder: Path) -> dict[bytes, bytes]:
    """The data keys as they lie in their file, by id."""
    with closing(sqlite3.connect(folder / DATA_KEYS_FILE_NAME)) as file:
        found = "SELECT id, substr(content, 1, 60) FROM data_keys JOIN slots USING (slot)"
        return dict(file.execute(found).fetchall())


def all_keys(folder: Path, masters: MasterKeys = lambda: ONE) -> dict[bytes | None, bytes | None]:
    """The data keys themselves, by id."""
    ids = list(wrapped_keys(folder))
    keys = DataKeys(folder / DATA_KEYS_FILE_NAME, masters=masters, patience_s=1)
    found = dict(keys.of(ids))
    keys.close()
    return found


def copied(folder: Path, to: Path) -> None:
    """A backup of the gallery alone, by SQLite's own means, as an ordinary backup is."""
    to.mkdir()
    with (
        closing(sqlite3.connect(folder / FILE_NAME)) as source,
        closing(sqlite3.connect(to / FILE_NAME)) as target,
    ):
        source.backup(target)


# Nothing of them can be read.


def test_nothing_that_tells_of_a_person_can_be_read_in_the_files(
    folder: Path, gallery: Galleries
) -> None:
    (ada,) = units(1, 0)
    enroll_ada(gallery, ada)
    assert search(gallery, ada)[0][0].name == "Ada by name"
    raw = raw_files(folder)
    assert not is_in(ada, raw)
    assert [told for told in TELLING if told in raw] == []
    assert [key for key in all_keys(folder).values() if key and key in raw] == []


def test_each_face_is_sealed_anew_and_of_one_length_with_what_it_was(
    folder: Path, gallery: Galleries
) -> None:
    (ada,) = units(1, 1)
    enroll(gallery, "ada", ada, ada)
    with closing(sqlite3.connect(folder / FILE_NAME)) as file:
        rows = file.execute("SELECT seal, content FROM faces JOIN slots USING (slot)").fetchall()
    assert len({content for _, content in rows}) == 2
    assert {(len(seal), len(content)) for seal, content in rows} == {(28, 2048)}


# Erased is erased, in every copy.


def test_an_erased_person_cannot_be_read_in_a_backup_that_was_made_before(
    folder: Path, gallery: Galleries, tmp_path: Path
) -> None:
    ada, bob = units(2, 2)
    enroll_ada(gallery, ada)
    enroll(gallery, "bob", bob)
    wrapped, keys = wrapped_keys(folder), all_keys(folder)
    copied(folder, backup := tmp_path / "backup")
    copied(folder, control := tmp_path / "control")
    keys_then = (folder / DATA_KEYS_FILE_NAME).read_bytes()
    erasure = gallery.delete_person("default", "ada-by-id")
    assert erasure.done == (DELETED, KEY_ERASED, OVERWRITTEN, LOG_TRUNCATED)
    left = wrapped_keys(folder)
    [gone] = wrapped.keys() - left.keys()
    for place in (folder, backup):
        raw = raw_files(place)
        assert wrapped[gone] not in raw
        assert keys[gone] not in raw
        assert not is_in(ada, raw)
        assert [told for told in TELLING if told in raw] == []
    assert wrapped[next(iter(left))] in raw_files(folder)  # bob's is where ada's was looked for
    # The backup is brought back beside the data keys of now: ada is erased from it too.
    (folder / DATA_KEYS_FILE_NAME).rename(backup / DATA_KEYS_FILE_NAME)
    gallery.close()
    brought_back = opened(backup)
    assert [person.id for person in brought_back.list_persons("default").items] == ["bob"]
    assert [c.person_id for c in search(brought_back, ada, bob)[1]] == ["bob"]
    assert brought_back.get_gallery("default").faces == 1
    brought_back.close()
    # With the data keys of then, which no ordinary backup has, she would be there.
    (control / DATA_KEYS_FILE_NAME).write_bytes(keys_then)
    then = opened(control)
    assert then.get_person("default", "ada-by-id").name == "Ada by name"
    then.close()


def test_a_deleted_gallery_takes_the_data_keys_of_all_its_people(
    folder: Path, gallery: Galleries
) -> None:
    gallery.create_gallery("guests")
    for n, embedding in enumerate(units(5, 3)):
        enroll(gallery, f"p{n}", embedding, into="guests")
    enroll(gallery, "ada", units(1, 4)[0])
    wrapped = wrapped_keys(folder)
    gallery.delete_gallery("guests")
    assert len(wrapped_keys(folder)) == 1
    raw = raw_files(folder)
    assert sum(key in raw for key in wrapped.values()) == 1


# The two files are no one transaction.


def run_until_it_dies(work: Callable[[], Any]) -> None:
    process = FORK.Process(target=work)
    process.start()
    process.join()
    assert process.exitcode == 9


def die(*_: Any, **__: Any) -> Any:
    os._exit(9)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_data_key_whose_person_never_came_is_erased_at_the_next_start(folder: Path) -> None:
    opened(folder).close()

    def crash() -> None:
        people.insert_person = die
        enroll(opened(folder), "ada", units(1, 5)[0])

    run_until_it_dies(crash)
    assert len(wrapped_keys(folder)) == 1
    gallery = opened(folder)
    assert wrapped_keys(folder) == {}
    enroll(gallery, "ada", units(1, 5)[0])
    assert len(wrapped_keys(folder)) == 1
    gallery.close()


def test_a_data_key_of_an_enrolment_that_was_undone_goes_with_the_next(
    folder: Path, gallery: Galleries
) -> None:
    a, b, c = units(3, 6)
    enroll(gallery, "ada", a)
    with pytest.raises(ZeroDivisionError):
        gallery.enroll(
            "default",
            [NewFace(b, {})],
            space=SPACE,
            answer=lambda enrolment: bytes(1 // 0),
        )
    assert len(wrapped_keys(folder)) == 2
    enroll(gallery, "bob", c)
    assert len(wrapped_keys(folder)) == 2
    assert [person.id for person in gallery.list_persons("default").items] == ["ada", "bob"]


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_crash_between_a_person_and_their_data_key_is_made_good_at_the_next_start(
    folder: Path,
) -> None:
    ada, bob = units(2, 7)
    gallery = opened(folder)
    enroll(gallery, "ada", ada)
    enroll(gallery, "bob", bob)
    gallery.close()

    def crash() -> None:
        DataKeys.erase = die  # type: ignore[method-assign]
        opened(folder).delete_person("default", "ada")

    run_until_it_dies(crash)
    assert len(wrapped_keys(folder)) == 2
    gallery = opened(folder)
    assert [person.id for person in gallery.list_persons("default").items] == ["bob"]
    assert len(wrapped_keys(folder)) == 1
    gallery.close()


def test_an_older_copy_costs_those_who_came_since_no_key(folder: Path, tmp_path: Path) -> None:
    """The wrong copy brought back, and then the right one: nobody is lost."""
    gallery = opened(folder)
    enroll(gallery, "ada", units(1, 8)[0])
    copied(folder, older := tmp_path / "older")
    for n, embedding in enumerate(units(3, 9)):
        enroll(gallery, f"p{n}", embedding)
    gallery.close()
    right = tmp_path / "right"
    right.mkdir()
    (folder / FILE_NAME).rename(right / FILE_NAME)
    (older / FILE_NAME).rename(folder / FILE_NAME)
    wrong = opened(folder)
    assert wrong.persons_in("default") == 1
    wrong.close()
    (right / FILE_NAME).rename(folder / FILE_NAME)
    again = opened(folder)
    assert len(again.list_persons("default").items) == 4
    again.close()


# A start with other keys is refused, with the reason.


def test_a_start_without_the_right_keys_is_refused_and_says_which_is_missing(
    folder: Path, gallery: Galleries
) -> None:
    enroll(gallery, "ada", units(1, 10)[0])
    gallery.close()
    with pytest.raises(TemplateKeysRefused, match="1 persons are sealed"):
        open_gallery(folder)
    with pytest.raises(TemplateKeysRefused, match="template key first, which the file lacks"):
        opened(folder, {"second": bytes(32)})
    with pytest.raises(TemplateKeysRefused, match="first is not the one that wrapped"):
        opened(folder, {"first": bytes(32)})
    (folder / DATA_KEYS_FILE_NAME).rename(folder / "elsewhere")
    with pytest.raises(TemplateKeysRefused, match=r"data keys of 1 persons are missing"):
        opened(folder)
    (folder / "elsewhere").rename(folder / DATA_KEYS_FILE_NAME)
    opened(folder, {"second": bytes(32), **ONE}).close()


def test_who_opened_the_store_before_it_was_sealed_is_told_so(folder: Path) -> None:
    (ada,) = units(1, 11)
    without = open_gallery(folder)
    enroll(without, "ada", ada)
    assert search(without, ada)[0]
    opened(folder).close()
    with pytest.raises(StorageUnavailable, match="MIEN_TEMPLATE_KEY_FILE"):
        search(without, ada)
    without.close()


# Who lies there unsealed is sealed at the start.


@pytest.mark.parametrize("version", [1, 2])
def test_an_older_store_is_sealed_at_the_start_and_no_clear_byte_is_left(
    folder: Path, version: int
) -> None:
    (ada,) = units(1, 12)
    write_old_store(folder, version, ada)
    assert is_in(ada, raw_files(folder))
    gallery = opened(folder)
    raw = raw_files(folder)
    assert not is_in(ada, raw)
    assert b'"Ada"' not in raw
    assert b"as it was answered" not in raw
    assert [(c.person_id, c.name) for c in search(gallery, ada)[0]] == [("ada", "Ada")]
    assert gallery.answered("default", Idempotency("key", "print")) == b"as it was answered"
    assert gallery.get_person("default", "ada").metadata == {"n": 1}
    gallery.close()


def test_a_sealing_that_was_broken_off_goes_on_at_the_next_start(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    embeddings = units(7, 13)
    clear = open_gallery(folder)
    for n, embedding in enumerate(embeddings):
        enroll(clear, f"person-{n}", embedding, name=f"by-name-{n}")
    clear.close()
    seal_person, sealed = keeping.seal_person, []

    def break_off(db: Any, number: int, data_key: Any) -> None:
        if len(sealed) == 5:
            raise KeyboardInterrupt
        sealed.append(number)
        seal_person(db, number, data_key)

    monkeypatch.setattr(vault, "SEALED_AT_ONCE", 2)
    with monkeypatch.context() as broken:
        broken.setattr(keeping, "seal_person", break_off)
        with pytest.raises(KeyboardInterrupt):
            opened(folder)
    with closing(sqlite3.connect(folder / FILE_NAME)) as file:
        done = file.execute("SELECT count(*) FROM persons WHERE data_key IS NOT NULL").fetchone()
    assert done == (4,)
    gallery = opened(folder)
    raw = raw_files(folder)
    assert [n for n, e in enumerate(embeddings) if is_in(e, raw)] == []
    assert b"by-name" not in raw
    assert [found[0].name for found in search(gallery, *embeddings)] == [
        f"by-name-{n}" for n in range(7)
    ]
    assert len(wrapped_keys(folder)) == 7
    gallery.close()


def test_sealing_somebody_reads_no_table_from_end_to_end(folder: Path) -> None:
    clear = open_gallery(folder)
    assert isinstance(clear, Store)
    enroll_ada(clear, units(1, 20)[0])
    said: list[str] = []
    with clear._file.write() as db:
        db.set_trace_callback(said.append)
        keeping.seal_person(db, 1, (bytes(16), bytes(32)))
        db.set_trace_callback(None)
        plans = [row[3] for text in said for row in db.execute(f"EXPLAIN QUERY PLAN {text}")]
    assert [plan for plan in plans if plan.startswith("SCAN")] == []
    assert sum(plan.startswith("SEARCH faces") for plan in plans) == 2
    clear.close()


# A row that was changed or moved does not open.


def swap(folder: Path, table: str, *columns: str) -> None:
    """Gives the first two rows of a table each other's contents, as another program could."""
    with closing(sqlite3.connect(folder / FILE_NAME)) as file, file:
        first, second = file.execute(
            f"SELECT number, {', '.join(columns)} FROM {table} ORDER BY number LIMIT 2"
        ).fetchall()
        for row, other in ((first, second), (second, first)):
            values = ", ".join(f"{column} = ?" for column in columns)
            file.execute(f"UPDATE {table} SET {values} WHERE number = ?", (*other[1:], row[0]))


def test_a_face_that_a_search_finds_broken_while_readiness_looks_is_not_forgotten(
    folder: Path, gallery: Galleries, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = units(2, 21)
    enroll(gallery, "ada", a)
    enroll(gallery, "bob", b)
    gallery.close()
    swap(folder, "faces", "slot", "seal")
    after = opened(folder)
    assert isinstance(after, Store)
    search(after, a)
    both = dict(after._truth.broken)
    after._truth.broken.popitem()
    read = after._file.read

    @contextmanager
    def read_while_a_search_goes_on() -> Iterator[Any]:
        with read() as db:
            yield db
        after._truth.broken.update(both)

    monkeypatch.setattr(after._file, "read", read_while_a_search_goes_on)
    after._truth.still_broken()
    assert after._truth.broken == both
    after.close()


@pytest.mark.parametrize("whose", ["of one person", "of two"])
def test_faces_that_were_swapped_are_found_by_nobody_and_readiness_names_them(
    folder: Path, gallery: Galleries, whose: str
) -> None:
    a, b, c = units(3, 14)
    first = enroll(gallery, "ada", a)
    second = enroll(gallery, "ada" if whose == "of one person" else "bob", b)
    enroll(gallery, "eve", c)
    gallery.close()
    swap(folder, "faces", "slot", "seal")
    after = opened(folder)
    assert [[c.person_id for c in found] for found in search(after, a, b, c)] == [["eve"]] * 3
    told = after.check()
    assert len(told) == 2
    assert [face in " ".join(told) for face in (*first, *second)] == [True, True]
    after.delete_face("default", "ada", first[0])  # and can be deleted
    assert len(after.check()) == 1
    after.close()


def test_people_who_were_swapped_are_not_taken_for_each_other(
    folder: Path, gallery: Galleries
) -> None:
    a, b, c = units(3, 15)
    for who, embedding in (("ada", a), ("bob", b), ("eve", c)):
        enroll(gallery, who, embedding)
    swap(folder, "persons", "slot", "seal")
    with pytest.raises(StorageUnavailable, match="does not open"):
        gallery.get_person("default", "ada")
    with pytest.raises(StorageUnavailable, match="does not open"):
        search(gallery, a, top_k=1)
    assert search(gallery, c, top_k=1)[0][0].person_id == "eve"
    gallery.delete_person("default", "ada")  # erased all the same


def test_a_gallery_that_took_another_s_name_does_not_open(folder: Path, gallery: Galleries) -> None:
    gallery.create_gallery("guests")
    (a,) = units(1, 16)
    enroll(gallery, "ada", a, into="guests")
    gallery.close()
    with closing(sqlite3.connect(folder / FILE_NAME)) as file, file:
        file.execute("UPDATE galleries SET name = 'staff' WHERE name = 'guests'")
    after = opened(folder)
    assert search(after, a, into="staff") == [[]]
    assert "staff" in after.check()[0]
    after.close()


# Rotation.


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    add_template_key(tmp_path / "template.keys")
    return tmp_path / "template.keys"


def test_a_rotation_while_others_read_and_enrol_leaves_the_older_key_nothing(
    folder: Path, key_file: Path
) -> None:
    masters = TemplateKeyFile(key_file)
    serving = open_gallery(folder, masters=masters)
    embeddings = units(5, 17)
    for n, embedding in enumerate(embeddings[:4]):
        enroll(serving, f"p{n}", embedding)
    before = wrapped_keys(folder)
    [old] = read_template_keys(key_file)
    new = add_template_key(key_file)
    keys = DataKeys(folder / DATA_KEYS_FILE_NAME, masters=masters, patience_s=1)
    assert keys.by_master() == {old: 4}
    assert keys.rewrap() == 4
    assert keys.by_master() == {new: 4}
    assert keys.rewrap() == 0
    enroll(serving, "p4", embeddings[4])  # with the newest, without being started again
    assert keys.by_master() == {new: 5}
    keys.close()
    raw = raw_files(folder)
    assert [key for key in before.values() if key in raw] == []
    serving.close()
    lines = key_file.read_text().splitlines(keepends=True)
    key_file.write_text("".join(line for line in lines if not line.startswith(old)))
    after = open_gallery(folder, masters=TemplateKeyFile(key_file))
    found = [candidates[0].person_id for candidates in search(after, *embeddings)]
    assert found == [f"p{n}" for n in range(5)]
    after.close()


def test_a_key_is_wrapped_by_what_is_the_newest_when_its_turn_has_come(
    folder: Path, gallery: Galleries
) -> None:
    """Else a rotation could end while it waits, and the older key be taken away after it."""
    newest, in_turn = "first", []

    def masters() -> dict[str, bytes]:
        with (folder / f"{DATA_KEYS_FILE_NAME}-turn").open() as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                in_turn.append(True)
            else:
                in_turn.append(False)
        return {newest: ONE["first"]}

    keys = DataKeys(folder / DATA_KEYS_FILE_NAME, masters=masters, patience_s=1)
    in_turn.clear()
    keys.make(1, stands=lambda key_id: True)
    assert in_turn == [True]
    keys.close()


def test_a_rotation_that_was_broken_off_goes_on_where_it_was(
    folder: Path, gallery: Galleries, monkeypatch: pytest.MonkeyPatch
) -> None:
    for n, embedding in enumerate(units(5, 18)):
        enroll(gallery, f"p{n}", embedding)
    monkeypatch.setattr(datakeys, "REWRAPPED_AT_ONCE", 2)
    both = {"second": bytes(32), **ONE}
    keys = DataKeys(folder / DATA_KEYS_FILE_NAME, masters=lambda: both, patience_s=1)
    assert keys._rewrap_some("second") == 2
    assert keys.by_master() == {"first": 3, "second": 2}
    gallery.close()
    opened(folder, both).close()  # half-way it serves
    assert keys.rewrap() == 3
    keys.close()
    opened(folder, {"second": bytes(32)}).close()


# The file of template keys.


def test_a_new_key_is_the_first_of_its_file_which_is_the_owner_s_alone(tmp_path: Path) -> None:
    path = tmp_path / "template.keys"
    first = add_template_key(path)
    second = add_template_key(path)
    keys = read_template_keys(path)
    assert list(keys) == [second, first]
    assert {len(key) for key in keys.values()} == {32}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


KEY = base64.b64encode(bytes(32)).decode()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "has no key"),
        ("# nothing\n\n", "has no key"),
        (f"a {KEY}\na {base64.b64encode(bytes(31) + b'1').decode()}\n", "line 2: .*there already"),
        (f"a {KEY}\nb {KEY}\n", "line 2: .*there already"),
        (f"{KEY}\n", "line 1 is not an id"),
        (f"a/b {KEY}\n", "line 1 is not an id"),
        (f"a {KEY[:-4]}\n", "line 1: the key is not 32 bytes"),
        ("a !!!!\n", "line 1: the key is not 32 bytes"),
        ("x" * 70_000, "no file of keys"),
    ],
)
def test_a_file_that_is_none_of_keys_is_refused_with_the_line(
    tmp_path: Path, text: str, reason: str
) -> None:
    path = tmp_path / "template.keys"
    path.write_text(text)
    with pytest.raises(TemplateKeysRefused, match=reason) as refused:
        TemplateKeyFile(path)()
    assert KEY not in str(refused.value)
    if text:
        with pytest.raises(TemplateKeysRefused):
            add_template_key(path)
        assert path.read_text() == text


def test_nobody_is_erased_unnamed_while_the_key_file_is_away(folder: Path, key_file: Path) -> None:
    now = [1_800_000_000.0]
    folder.mkdir()
    gallery = Store(
        folder / FILE_NAME,
        search_threads=1,
        patience_s=0.5,
        masters=TemplateKeyFile(key_file),
        now=lambda: now[0],
    )
    gallery.update_gallery("default", retention_days=1)
    enroll(gallery, "ada", units(1, 22)[0])
    now[0] += 2 * 86_400
    key_file.rename(away := key_file.with_name("away"))
    with pytest.raises(StorageUnavailable, match="No such file"):
        gallery.erase_expired()
    away.rename(key_file)
    erasure = gallery.erase_expired()
    assert erasure is not None
    assert erasure.person_id == "ada"
    gallery.close()


def test_a_key_file_that_goes_away_is_told_and_comes_back(folder: Path, key_file: Path) -> None:
    (a,) = units(1, 19)
    gallery = open_gallery(folder, masters=TemplateKeyFile(key_file))
    assert isinstance(gallery, Store)
    enroll(gallery, "ada", a)
    assert gallery.check() == []
    key_file.rename(away := key_file.with_name("away"))
    assert "No such file" in gallery.check()[0]
    with pytest.raises(StorageUnavailable, match="No such file"):
        gallery.get_person("default", "ada")
    away.rename(key_file)
    assert gallery.check() == []
    assert json.dumps(gallery.get_person("default", "ada").id) == '"ada"'
    gallery.close()
