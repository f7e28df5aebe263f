"""A store as an older Mien left it: its schema and its rows, written without the gallery's code."""

import hashlib
import json
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from service.gallery import FILE_NAME
from service.gallery.schema import SCHEMA
from tests.service.gallery_contract import SPACE


def write_old_store(folder: Path, version: int, embedding: NDArray[np.float32]) -> None:
    """A store of that version, 1 or 2: ada in `default`, with a face and an answer that is kept."""
    folder.mkdir()
    answer = b"as it was answered"
    contents = [
        json.dumps(["ada", "Ada"]).encode() + b"\n" + json.dumps({"n": 1}).encode(),
        embedding.astype("<f4").tobytes(),
        answer,
    ]
    with closing(sqlite3.connect(folder / FILE_NAME)) as file, file:
        file.execute("PRAGMA page_size = 8192")
        for script in SCHEMA[:version]:
            file.executescript(script)
        file.execute(f"PRAGMA user_version = {version}")
        for content in contents:
            padded = content.ljust(2048 if len(content) > 256 else 256, b"\0")
            file.execute("INSERT INTO slots (content) VALUES (?)", (padded,))
        file.execute(
            "UPDATE galleries SET space = ?, persons = 1, faces = 1, revision = 1", (SPACE,)
        )
        id_hash = hashlib.blake2b(b"ada", digest_size=16).digest()
        file.execute(
            "INSERT INTO persons (gallery, id_hash, slot, created, updated)"
            " VALUES (1, ?, 1, 1e9, 1e9)",
            (id_hash,),
        )
        file.execute(
            "INSERT INTO faces (gallery, person, id, slot, details, created)"
            " VALUES (1, 1, '01J00000000000000000000000', 2, '{}', 1e9)"
        )
        file.execute("INSERT INTO changes VALUES (1, 1, 1)")
        file.execute(
            "INSERT INTO answers (gallery, key, fingerprint, slot, size, person, created)"
            " VALUES (1, 'key', 'print', 3, ?, 1, 1e9)",
            (len(answer),),
        )
