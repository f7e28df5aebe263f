"""The gallery's times: enrolment, deletion, search and rebuilding, at 10,000 and 100,000 faces.

    python -m benchmarks.gallery [--faces 10000 100000] [--folder FOLDER]

Random unit embeddings, ten faces a person, one process and one thread, on the disk of FOLDER (the
system's temporary folder). Beside each search stands a bare faiss.IndexFlatIP on the same vectors,
beside each write a bare fsync of 4 KiB on the same disk. Writes benchmarks/results/gallery.md.
"""

import argparse
import os
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import faiss
import numpy as np
from numpy.typing import NDArray

from benchmarks.hardware import as_line, hardware
from service.gallery import FILE_NAME, open_gallery
from service.gallery.contract import Galleries, Idempotency, NewFace

RESULTS = Path(__file__).parent / "results" / "gallery.md"
SPACE = "benchmark/1"
FACES_A_PERSON = 10
WRITES = 300
SEARCHES = 100
DETAILS = {
    "box": {"x": 210.4, "y": 96.0, "width": 118.2, "height": 151.7},
    "confidence": 0.999,
    "quality": {"score": 0.81, "sharpness": 412.0},
}

Row = tuple[str, str, str, str]


def units(count: int, seed: int) -> NDArray[np.float32]:
    """Random unit embeddings, float32 (count, 512)."""
    drawn = np.random.default_rng(seed).standard_normal((count, 512), dtype=np.float32)
    return np.asarray(drawn / np.linalg.norm(drawn, axis=1, keepdims=True))


def enroll(gallery: Galleries, person: str, embeddings: NDArray[np.float32]) -> None:
    gallery.enroll(
        "default",
        [NewFace(embedding, DETAILS) for embedding in embeddings],
        space=SPACE,
        answer=lambda enrolment: " ".join(enrolment.faces).encode() * 4,
        person_id=person,
        name=f"Person {person}",
        metadata={"from": "benchmark"},
        idempotency=Idempotency(f"key of {person}", "print"),
    )


def timed(name: str, call: Callable[[int], object], times: int) -> Row:
    """The row of a call: p50 and p95 of its wall time, mean of its CPU time, in ms."""
    walls = []
    cpu = time.process_time()
    for n in range(times):
        start = time.perf_counter()
        call(n)
        walls.append(time.perf_counter() - start)
    cpu = (time.process_time() - cpu) / times
    p50, p95 = np.percentile(walls, [50, 95])
    return name, f"{p50 * 1e3:.2f}", f"{p95 * 1e3:.2f}", f"{cpu * 1e3:.2f}"


def rows(folder: Path, faces: int) -> Iterator[Row]:
    """One row a measurement, in a gallery of so many faces."""
    vectors = units(faces, 0)
    gallery = open_gallery(folder)
    for first in range(0, faces, FACES_A_PERSON):
        enroll(gallery, f"p{first}", vectors[first : first + FACES_A_PERSON])
    gallery.close()

    def rebuild(_: int) -> None:
        reader = open_gallery(folder)
        reader.warm_up()
        reader.close()

    yield timed("open and build the index", rebuild, 3)

    gallery, elsewhere = open_gallery(folder), open_gallery(folder)
    gallery.warm_up()
    yield timed("fsync of 4 KiB, bare", synced(folder / "bare"), WRITES)
    new = units(WRITES, 1)
    yield timed(
        "enrol a person with one face", lambda n: enroll(gallery, f"n{n}", new[n, None]), WRITES
    )

    flat = faiss.IndexFlatIP(512)
    flat.add(vectors)
    faiss.omp_set_num_threads(1)
    queries = units(50, 2)

    def search(count: int) -> Callable[[int], object]:
        asked = queries[:count]
        return lambda _: gallery.search("default", space=SPACE, embeddings_ND=asked, top_k=5)

    search(1)(0)
    yield timed("IndexFlatIP alone, 1 query", lambda _: flat.search(queries[:1], 5), SEARCHES)
    yield timed("search, 1 query", search(1), SEARCHES)
    yield timed("search, 50 queries", search(50), SEARCHES // 5)

    more = units(SEARCHES, 3)
    after_enrolment = []
    for n in range(SEARCHES):
        enroll(elsewhere, f"e{n}", more[n, None])
        after_enrolment.append(timed_once(search(1)))
    p50, p95 = np.percentile(after_enrolment, [50, 95])
    yield "search after an enrolment elsewhere", f"{p50 * 1e3:.2f}", f"{p95 * 1e3:.2f}", ""

    yield timed(
        "delete a person with one face", lambda n: gallery.delete_person("default", f"n{n}"), WRITES
    )
    size_bytes = (folder / FILE_NAME).stat().st_size
    yield timed("delete the gallery", lambda _: gallery.delete_gallery("default"), 1)
    gallery.close()
    elsewhere.close()
    yield (
        f"file with answers: {size_bytes / 2**20:.0f} MiB, {size_bytes / faces:.0f} bytes a face",
        "",
        "",
        "",
    )


def timed_once(call: Callable[[int], object]) -> float:
    start = time.perf_counter()
    call(0)
    return time.perf_counter() - start


def synced(path: Path) -> Callable[[int], object]:
    """A call that appends 4 KiB to the file and syncs it."""

    def call(_: int) -> None:
        with path.open("ab") as file:
            file.write(bytes(4096))
            file.flush()
            os.fsync(file.fileno())

    return call


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--faces", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--folder", type=Path)
    given = parser.parse_args()
    facts = as_line(hardware("faiss-cpu", "numpy")) + f"; SQLite {sqlite3.sqlite_version}"
    lines = ["# The gallery's times", "", "`python -m benchmarks.gallery`", "", facts, ""]
    for faces in given.faces:
        lines += [
            f"## {faces} faces",
            "",
            "| | p50 ms | p95 ms | CPU ms |",
            "| --- | --- | --- | --- |",
        ]
        with tempfile.TemporaryDirectory(dir=given.folder) as folder:
            for row in rows(Path(folder), faces):
                lines.append(f"| {' | '.join(row)} |")
                print(lines[-1], flush=True)
        lines.append("")
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text("\n".join(lines))


if __name__ == "__main__":
    main()
