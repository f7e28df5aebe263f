"""`mien backup` while a real server enrols, and `mien restore` for another real server."""

import json
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest

from service.gallery import open_gallery
from service.gallery.contract import NewFace
from tests.cartoon import cartoon_photograph
from tests.drawn import png
from tests.e2e.enroller import Deed, embeddings_of
from tests.e2e.server import ROOT, served
from tests.e2e.test_cli import MIEN
from tests.e2e.test_faults import enrolled, match_of, persons_of
from tests.standin import NAME, SPACE

BACKUPS = 3
PERSONS_BEFORE = 300


class Callers:
    """Two callers who enrol one person after another until they are told to stop."""

    def __init__(self, address: str, image: bytes) -> None:
        self.begun: list[str] = []
        self.told: list[str] = []
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._enrol, args=(address, image, who)) for who in "ab"
        ]

    def __enter__(self) -> "Callers":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *failure: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _enrol(self, address: str, image: bytes, who: str) -> None:
        number = 0
        while not self._stop.is_set():
            person = f"{who}-{number}"
            self.begun.append(person)
            assert enrolled(address, person, image) == (201, "")
            self.told.append(person)
            number += 1


def mien(*words: object) -> Any:
    """What the command prints with --json."""
    command = [*MIEN, *map(str, words), "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data folder with people whose copying takes a moment."""
    gallery = open_gallery(tmp_path / "data")
    for n in range(PERSONS_BEFORE):
        faces = [NewFace(e, {}) for e in embeddings_of(Deed("enroll", "", "", n))]
        gallery.enroll("default", faces, space=SPACE, answer=lambda _: b"", person_id=f"before-{n}")
    gallery.close()
    return tmp_path / "data"


def test_whoever_was_enrolled_before_a_backup_is_in_it_and_nobody_by_half(
    data: Path, tmp_path: Path, models: Path
) -> None:
    image = png(cartoon_photograph([(220, 120, 200)]))
    settings = {"models": models, "recognition": NAME, "expression": "off", "attributes": "off"}
    taken = []
    with served(data, tmp_path / "log", **settings) as (address, _):
        assert enrolled(address, "ada", image) == (201, "")
        with Callers(address, image) as callers:
            for n in range(BACKUPS):
                before = set(callers.told)
                facts = mien("backup", tmp_path / f"backup-{n}.tar", "--data", data)
                taken.append((before, set(callers.begun), set(callers.told), facts))
        refused = subprocess.run(
            [*MIEN, "restore", str(tmp_path / "backup-0.tar"), "--data", str(data), "--replace"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert (refused.returncode, "a server or a command uses it" in refused.stderr) == (2, True)
    assert any(before < told for before, _, told, _ in taken)  # they did enrol meanwhile

    old = {f"before-{n}" for n in range(PERSONS_BEFORE)} | {"ada"}
    before, begun, _, facts = taken[-1]
    mien("restore", tmp_path / f"backup-{BACKUPS - 1}.tar", "--data", tmp_path / "new")
    with served(tmp_path / "new", tmp_path / "log", **settings) as (address, _):
        persons = persons_of(address)
        assert before | old <= set(persons) <= begun | old
        assert all(
            faces == (2 if who.startswith("before-") else 1) for who, faces in persons.items()
        )
        [gallery] = facts["contents"]["galleries"]
        assert (gallery["persons"], gallery["faces"]) == (len(persons), sum(persons.values()))
        assert match_of(address, image) == "ada"
        assert enrolled(address, "after", image) == (201, "")
