"""A process that enrols and deletes until it is killed, and tells what it was told.

What it does is a function of its seed: enrolment n of life s brings two faces of the embeddings
units(2, ...) to person "s-(n // 3)", and after each fifth the person before is deleted.
"""

import json
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from service.gallery import open_gallery
from service.gallery.contract import Enrolment, Galleries, Idempotency, NewFace
from service.gallery.store import Store

SPACE = "ecacface-mobile/1"


@dataclass(frozen=True)
class Deed:
    """Something a life does. verb: enroll or delete; key: of the enrolment, or of the deletion."""

    verb: str
    key: str
    person: str
    seed: int


def deeds(life: int) -> Iterator[Deed]:
    """What a life does, in order, for as long as it lasts."""
    for n in count():
        yield Deed("enroll", f"{life}-{n}", f"{life}-{n // 3}", 1000 * life + n)
        if n % 5 == 4:
            yield Deed("delete", f"{life}-{n}-delete", f"{life}-{n // 3 - 1}", 0)


def embeddings_of(deed: Deed) -> NDArray[np.float32]:
    """The embeddings of an enrolment's two faces, float32 (2, 512)."""
    drawn = np.random.default_rng(deed.seed).standard_normal((2, 512)).astype(np.float32)
    return np.asarray(drawn / np.linalg.norm(drawn, axis=1, keepdims=True), np.float32)


def answer_of(enrolment: Enrolment) -> bytes:
    return json.dumps([enrolment.person.id, enrolment.person.faces, enrolment.faces]).encode()


def enroll(gallery: Galleries, deed: Deed) -> bytes:
    """The answer that the caller of this enrolment gets."""
    return gallery.enroll(
        "default",
        [NewFace(e, {"key": deed.key, "face": n}) for n, e in enumerate(embeddings_of(deed))],
        space=SPACE,
        answer=answer_of,
        person_id=deed.person,
        name=f"Person {deed.person}",
        metadata={"of": deed.person},
        idempotency=Idempotency(deed.key, "print"),
    )


def live(folder: Path, life: int, told: Connection, die_at: int | None = None) -> None:
    """Does its deeds, and after each tells it with its answer: so far, a caller knows of it.

    die_at: kills itself as the so-manieth SQL statement of its writes begins.
    """
    gallery = open_gallery(folder)
    if die_at is not None:
        _die_at_statement(gallery, die_at)
    told.send(None)  # open
    for deed in deeds(life):
        if deed.verb == "enroll":
            told.send((deed, enroll(gallery, deed)))
        else:
            gallery.delete_person("default", deed.person)
            told.send((deed, b""))


def _die_at_statement(gallery: Galleries, die_at: int) -> None:
    assert isinstance(gallery, Store)
    left = count(die_at, -1)

    def trace(statement: str) -> None:
        if next(left) == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    gallery._file._writer.set_trace_callback(trace)
