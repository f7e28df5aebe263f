"""What the gallery told a caller is there after kill -9 and on a full disk, and nothing by half."""

import contextlib
import json
import multiprocessing
import random
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from service.errors import AnswerErased, PersonUnknown
from service.gallery import FILE_NAME, open_gallery
from service.gallery.contract import Galleries, Idempotency, PersonRecord
from tests.e2e.enroller import SPACE, Deed, deeds, embeddings_of, enroll, live

REPOSITORY = Path(__file__).resolve().parents[2]
LIVES = 60
FORKSERVER = multiprocessing.get_context("forkserver")  # imports once: a life begins in no time


class Told:
    """What callers were told over all lives, and what was under way at a kill."""

    def __init__(self) -> None:
        self.enrolled: dict[str, tuple[Deed, bytes]] = {}
        self.deleted: set[str] = set()
        self.under_way: list[Deed] = []

    def note(self, deed: Deed, answer: bytes) -> None:
        if deed.verb == "enroll":
            self.enrolled[deed.key] = (deed, answer)
        else:
            self.deleted.add(deed.person)


@pytest.fixture(scope="module", autouse=True)
def nursery() -> None:
    FORKSERVER.set_forkserver_preload(["tests.e2e.enroller"])


def seeded() -> random.Random:
    """Other moments in every run; a failure shows the seed."""
    seed = time.time_ns()
    print(f"seed {seed}")
    return random.Random(seed)


def kill_in_mid_life(
    folder: Path, life: int, told: Told, *, rng: random.Random, die_at: int | None = None
) -> None:
    """One life, killed by itself at a statement, or by us some answers and a moment after."""
    reads, writes = FORKSERVER.Pipe(duplex=False)
    process = FORKSERVER.Process(target=live, args=(folder, life, writes, die_at))
    process.start()
    writes.close()
    known = 0
    with reads:
        try:
            assert reads.recv() is None
            answers = rng.randrange(12)
            while known < answers or die_at is not None:
                told.note(*reads.recv())
                known += 1
            time.sleep(rng.uniform(0, 0.008))  # an enrolment takes about 4 ms: any moment of it
            process.kill()
            while True:  # told before the kill
                told.note(*reads.recv())
                known += 1
        except EOFError:
            pass
    process.join()
    assert process.exitcode == -9
    process.close()
    told.under_way.append(next(islice(deeds(life), known, None)))


def persons_of(gallery: Galleries) -> Iterator[PersonRecord]:
    page = gallery.list_persons("default")
    yield from page.items
    while page.next_cursor is not None:
        page = gallery.list_persons("default", cursor=page.next_cursor)
        yield from page.items


def assert_whole(gallery: Galleries, told: Told) -> None:
    """Everything told is there, and nothing is there by half: store, answers and index agree."""
    persons = {person.id: person for person in persons_of(gallery)}
    faces = {p: gallery.list_faces("default", p, limit=1000).items for p in persons}
    keys = Counter(face.details["key"] for theirs in faces.values() for face in theirs)
    under_way = {deed.key: deed for deed in told.under_way if deed.verb == "enroll"}
    being_deleted = {deed.person for deed in told.under_way if deed.verb == "delete"}

    assert set(keys.values()) <= {2}, "an enrolment without one of its faces"
    gone = told.deleted | {person for person in being_deleted if person not in persons}
    expected = {key for key, (deed, _) in told.enrolled.items() if deed.person not in gone}
    assert expected <= set(keys), "told and not there"
    assert set(keys) - expected <= set(under_way), "there, and neither told nor under way"
    assert not told.deleted & set(persons), "told to be deleted, and there"
    for person in persons.values():
        assert person.faces == len(faces[person.id]) > 0, "a person without their faces"
        assert (person.name, person.metadata) == (f"Person {person.id}", {"of": person.id})
    record = gallery.get_gallery("default")
    assert (record.persons, record.faces) == (len(persons), 2 * len(keys))

    for key, (deed, answer) in told.enrolled.items():
        if deed.person in gone:
            with pytest.raises(AnswerErased):
                gallery.answered("default", Idempotency(key, "print"))
        else:
            assert gallery.answered("default", Idempotency(key, "print")) == answer
    for key in under_way:
        answered = gallery.answered("default", Idempotency(key, "print"))
        assert (answered is not None) == (key in keys), "an answer without its faces"

    known = {deed.key: deed for deed, _ in told.enrolled.values()} | under_way
    ids = {(f.details["key"], f.details["face"]): f.id for t in faces.values() for f in t}
    for key in random.Random(len(keys)).sample(sorted(keys), min(8, len(keys))):
        queries = embeddings_of(known[key])
        found = gallery.search("default", space=SPACE, embeddings_ND=queries, top_k=1000)
        assert [hits[0].face_id for hits in found] == [ids[key, 0], ids[key, 1]]
        assert all({hit.person_id for hit in hits} == set(persons) for hits in found)


def assert_sound(folder: Path) -> None:
    """SQLite finds no fault in the file, and each slot has one owner, or is free and zero."""
    with closing(sqlite3.connect(folder / FILE_NAME)) as file:
        assert file.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert file.execute("PRAGMA foreign_key_check").fetchall() == []
        owned = " UNION ALL ".join(
            f"SELECT slot FROM {table} WHERE slot IS NOT NULL"
            for table in ("faces", "persons", "answers", "free_slots")
        )
        every = file.execute("SELECT slot FROM slots").fetchall()
        assert file.execute(f"{owned} ORDER BY slot").fetchall() == every
        free = "SELECT content FROM slots JOIN free_slots USING (slot)"
        assert not any(any(content) for (content,) in file.execute(free))


def test_what_was_told_survives_kill_9_at_any_moment(tmp_path: Path) -> None:
    told, rng = Told(), seeded()
    for life in range(LIVES):
        kill_in_mid_life(tmp_path, life, told, rng=rng)
        gallery = open_gallery(tmp_path)
        assert_whole(gallery, told)
        gallery.close()
    assert_sound(tmp_path)
    assert len(told.enrolled) > LIVES  # the lives were not too short to tell of anything
    assert told.deleted


def test_a_process_that_serves_on_sees_what_the_killed_one_was_told(tmp_path: Path) -> None:
    told, rng = Told(), seeded()
    gallery = open_gallery(tmp_path)
    for life in range(10):
        kill_in_mid_life(tmp_path, life, told, rng=rng)
        assert_whole(gallery, told)
        enroll(gallery, Deed("enroll", f"ours-{life}", "ours", 10**6 + life))
        gallery.delete_person("default", "ours")
    gallery.close()
    assert_sound(tmp_path)


def test_a_kill_at_every_statement_of_a_write_leaves_it_done_or_undone(tmp_path: Path) -> None:
    told, rng = Told(), random.Random(0)
    statements = 0
    while not told.deleted:  # up to and beyond the first deletion, the sixth deed
        kill_in_mid_life(tmp_path, statements, told, rng=rng, die_at=statements)
        gallery = open_gallery(tmp_path)
        assert_whole(gallery, told)
        gallery.close()
        statements += 1 if statements < 40 else 7
    assert_sound(tmp_path)


def test_a_repeat_after_a_kill_enrolls_once(tmp_path: Path) -> None:
    told, rng = Told(), seeded()
    for life in range(10):
        kill_in_mid_life(tmp_path, life, told, rng=rng)
        gallery = open_gallery(tmp_path)
        last = told.under_way.pop()  # its caller got no answer, and asks again
        if last.verb == "enroll":
            told.note(last, enroll(gallery, last))
        else:
            with contextlib.suppress(PersonUnknown):
                gallery.delete_person("default", last.person)
            told.note(last, b"")
        for deed, answer in told.enrolled.values():
            if deed.key.startswith(f"{life}-") and deed.person not in told.deleted:
                assert enroll(gallery, deed) == answer
        assert_whole(gallery, told)
        gallery.close()


def story(name: str, folder: Path) -> dict[str, Any]:
    """What full_disk.py saw in this story, on a filesystem of 4 MiB."""
    for namespace in (["unshare", "-rm"], ["unshare", "-m"]):
        may_mount = [*namespace, "mount", "-t", "tmpfs", "mien", str(folder)]
        try:
            refused = subprocess.run(may_mount, capture_output=True, text=True).stderr
        except FileNotFoundError as error:
            refused = str(error)
        if not refused:
            command = [*namespace, sys.executable, "-m", "tests.e2e.full_disk", str(folder), name]
            told: dict[str, Any] = json.loads(subprocess.check_output(command, cwd=REPOSITORY))
            return told
    pytest.skip(f"no filesystem can be mounted here: {refused.strip()}")


def test_a_gallery_that_fills_the_disk_says_so_and_serves_on(tmp_path: Path) -> None:
    seen = story("grow", tmp_path)
    assert len(seen["told"]) > 10
    assert set(seen["again"]) == {"storage-full"}
    assert seen["full"] == {
        "persons": sorted(seen["told"]),
        "found": sorted(seen["told"]),
        "whole": True,
    }
    assert seen["check"] == ["the disk of MIEN_DATA is full: nothing can be enrolled"]
    then = sorted({*seen["told"], f"person-{len(seen['told'])}"} - {"person-1"})
    assert seen["after"] == {"persons": then, "found": then, "whole": True}


def test_a_disk_filled_by_another_keeps_what_was_told_and_nothing_by_half(tmp_path: Path) -> None:
    seen = story("ballast", tmp_path)
    told = sorted(seen["told"])
    assert seen["last"] == "storage-full"
    assert set(seen["errors"]) <= {"", "storage-full"}
    assert seen["full"] == {"persons": told, "found": told, "whole": True}
    assert seen["replay"] is True  # an answer that was given can be given again
    assert seen["elsewhere"] == "storage-full"
    if seen["deletion"] == "":
        told.remove("person-1")
    else:
        assert seen["deletion"] in {"storage-full", "erasure-incomplete"}
    then = sorted([*told, "person-999"])
    assert seen["after"] == {"persons": then, "found": then, "whole": True}


def test_a_gallery_opened_on_a_full_disk_says_so(tmp_path: Path) -> None:
    seen = story("closed", tmp_path)
    assert seen["opening"] == "storage-full"
    assert seen["after"] == {"persons": ["person-0"], "found": ["person-0"], "whole": True}


def test_a_gallery_opened_on_a_read_only_disk_says_so(tmp_path: Path) -> None:
    seen = story("read_only", tmp_path)
    assert seen["opening"] == "storage-unavailable"
    assert seen["after"]["persons"] == ["person-0"]
