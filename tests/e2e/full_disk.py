"""Drives a gallery on a small filesystem of its own until it is full; prints what it saw as JSON.

Run where it may mount: `unshare -rm python -m tests.e2e.full_disk FOLDER STORY`.
"""

import json
import subprocess
import sys
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

from service.errors import MienError
from service.gallery import open_gallery
from service.gallery.contract import Galleries
from tests.e2e.enroller import SPACE, Deed, embeddings_of, enroll

SIZE = "4m"


def said(call: Callable[[], object]) -> str:
    """The slug of the error that the call raises, "" for none."""
    try:
        call()
    except MienError as error:
        return error.slug
    return ""


def deed(n: int) -> Deed:
    return Deed("enroll", f"key-{n}", f"person-{n}", n)


def state(gallery: Galleries) -> dict[str, Any]:
    """What is there, and whether the store, its counters and its index agree on it."""
    persons = gallery.list_persons("default", limit=1000).items
    record = gallery.get_gallery("default")
    query = embeddings_of(deed(0))
    found = gallery.search("default", space=SPACE, embeddings_ND=query, top_k=1000)
    return {
        "persons": sorted(person.id for person in persons),
        "whole": {person.faces for person in persons} == {2}
        and (record.persons, record.faces) == (len(persons), 2 * len(persons)),
        "found": sorted(hit.person_id for hit in found[0]),
    }


def fill(folder: Path) -> Path:
    """Leaves not a byte free; the file that takes it all."""
    ballast = folder.parent / "ballast"
    with ballast.open("ab", buffering=0) as file:
        for size in (65536, 4096, 1):
            try:
                while file.write(bytes(size)) == size:
                    pass
            except OSError:
                continue
    return ballast


def grow(folder: Path) -> dict[str, Any]:
    """The gallery fills the disk by itself, is given room, and serves on."""
    gallery = open_gallery(folder, patience_s=1)
    reserve = folder.parent / "reserve"
    reserve.write_bytes(bytes(500_000))
    told = []
    for n in count():
        error = said(lambda n=n: enroll(gallery, deed(n)))
        if error:
            break
        told.append(f"person-{n}")
    again = [said(lambda n=n: enroll(gallery, deed(n))) for n in range(n, n + 5)]
    full = state(gallery)
    ready = gallery.check()
    reserve.unlink()
    enroll(gallery, deed(n))
    gallery.delete_person("default", "person-1")
    gallery.close()
    reopened = open_gallery(folder, patience_s=1)
    after = state(reopened)
    reopened.close()
    return {
        "told": told,
        "again": [error, *again],
        "full": full,
        "check": ready,
        "after": after,
    }


def ballast(folder: Path) -> dict[str, Any]:
    """Another fills the disk to the last byte while the gallery serves."""
    gallery = open_gallery(folder, patience_s=1)
    for n in range(3):
        enroll(gallery, deed(n))
    filler = fill(folder)
    errors = [said(lambda n=n: enroll(gallery, deed(n))) for n in range(3, 300)]
    told = [f"person-{n}" for n in range(3)] + [
        f"person-{n}" for n, error in enumerate(errors, start=3) if not error
    ]
    full = state(gallery)
    replay = enroll(gallery, deed(0)) == enroll(gallery, deed(0))
    deletion = said(lambda: gallery.delete_person("default", "person-1"))
    elsewhere = said(lambda: open_gallery(folder.parent / "other", patience_s=1))
    filler.unlink()
    enroll(gallery, deed(999))
    after = state(gallery)
    gallery.close()
    return {
        "told": told,
        "errors": sorted(set(errors)),
        "last": errors[-1],
        "full": full,
        "replay": replay,
        "deletion": deletion,
        "elsewhere": elsewhere,
        "after": after,
    }


def closed(folder: Path) -> dict[str, Any]:
    """A gallery is opened on a disk that is full, and again when there is room."""
    gallery = open_gallery(folder, patience_s=1)
    enroll(gallery, deed(0))
    gallery.close()
    filler = fill(folder)
    opening = said(lambda: open_gallery(folder, patience_s=1).close())
    filler.unlink()
    gallery = open_gallery(folder, patience_s=1)
    after = state(gallery)
    gallery.close()
    return {"opening": opening, "after": after}


def read_only(folder: Path) -> dict[str, Any]:
    """The disk is read-only when the gallery is opened."""
    gallery = open_gallery(folder, patience_s=1)
    enroll(gallery, deed(0))
    gallery.close()
    subprocess.run(["mount", "-o", "remount,ro", str(folder.parent)], check=True)
    opening = said(lambda: open_gallery(folder, patience_s=1))
    subprocess.run(["mount", "-o", "remount,rw", str(folder.parent)], check=True)
    gallery = open_gallery(folder, patience_s=1)
    after = state(gallery)
    gallery.close()
    return {"opening": opening, "after": after}


if __name__ == "__main__":
    mount, story = Path(sys.argv[1]), sys.argv[2]
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "mien", str(mount)], check=True)
    stories = {"grow": grow, "ballast": ballast, "closed": closed, "read_only": read_only}
    print(json.dumps(stories[story](mount / "data")))
