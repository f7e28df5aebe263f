"""A folder of people's photographs -> aligned crops in a .rec, by the service's own stages."""

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from service.errors import ImageError
from service.imagefile import read_photograph
from service.people_folder import require_folder_per_person
from service.vision.align import IDENTITY_CANVAS, Canvas, align_crops
from service.vision.detect import Cascade, detect_faces
from service.vision.faces import Face, Photograph
from training.data.crops import sort_out_files
from training.data.prepared import Line, Report, open_report
from training.data.recordio import RecordWriter
from training.detector import open_detector

MIN_FACE_PX: Final = 20  # the smallest face looked for, as in the service
MIN_INTER_EYE_PX: Final = 18
MAX_BYTES: Final = 64 * 1024 * 1024
MAX_PIXELS: Final = 40_000_000  # the service's default; each takes 15 bytes of memory
SIDES_PX: Final = range(32, 1025)
JPEG: Final = (
    *(cv2.IMWRITE_JPEG_QUALITY, 95),
    *(cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444),
)
EVERY: Final = 64  # photographs between two entries in the journal: a broken run does them again
KEPT: Final = "kept"


@dataclass(frozen=True)
class Prepared:
    """Result of a folder. rejected: how many photographs, by reason. skipped: how many files
    of systems, by reason. without_crop: the people of whom no photograph was kept. report: a csv
    with a line for each photograph."""

    kept: int
    rejected: dict[str, int]
    skipped: dict[str, int]
    people: int
    without_crop: list[str]
    report: Path


@dataclass(frozen=True)
class Seen:
    """A photograph that was looked at. jpeg: its crop; empty where there is none."""

    outcome: str
    detail: str = ""
    faces: int = 0
    jpeg: bytes = b""


def prepare(folder: Path, out: Path, *, threads: int = 2, size: int = 112) -> Prepared:
    """Crops of the people in folder, a folder a person, as out.rec with .idx, property and report.

    size: the crops' side in px. One face of a photograph is taken, the largest near the centre. A
    run that was broken off goes on when it is asked for again. Hidden files and those of systems,
    such as a NAS's thumbnails, are skipped. Raises FileNotFoundError without a photograph, and
    ValueError where folder seems to be one level too high (service/people_folder.py), where out is
    there already, lies below folder or beside another set, where the folder is not the one that was
    begun with, where no photograph gave a crop, and where out cannot be written (a full disk); what
    was done until then stays.
    """
    if size not in SIDES_PX:
        raise ValueError(f"size is {size}; crops have {SIDES_PX[0]} to {SIDES_PX[-1]} px")
    files, skipped = sort_out_files(folder)
    require_folder_per_person(folder, files)
    report_path = out.with_suffix(".report.csv")
    _require_room(folder, out, report_path)
    look = _looker(folder, size)
    try:
        with open_report(report_path) as report:
            if not out.exists():  # else only the report's last name was missing
                _fill(out, report, files, look, threads=threads, size=size)
            lines = report.lines
    except OSError as error:
        raise ValueError(
            f"{out} cannot be written: {error.strerror or error}; what was done is kept beside it, "
            "named .part, and the same command goes on from there"
        ) from error
    return _summary(lines, skipped, report_path)


def _require_room(folder: Path, out: Path, report_path: Path) -> None:
    if out.suffix != ".rec":
        raise ValueError(f"{out} is not named .rec")
    if folder.resolve() in out.resolve().parents:
        raise ValueError(f"{out} lies in {folder}, where it would be taken for a photograph")
    if out.exists() and not report_path.with_name(report_path.name + ".part").exists():
        raise ValueError(f"{out} is there already; remove it to make it anew")
    other = next((p for p in sorted(out.parent.glob("*.rec")) if p.name != out.name), None)
    if other is not None:
        raise ValueError(f"{other} lies beside {out.name}; `property` there can be of one set only")


def _fill(
    out: Path,
    report: Report,
    files: Sequence[str],
    look: Callable[[str], Seen],
    *,
    threads: int,
    size: int,
) -> None:
    """The .rec of all files, from where the report was left."""
    done = _done(out, report, files)
    resume_at = done[-1].rec_bytes if done else None
    waiting = files[len(done) :]
    with (
        RecordWriter(out, side=size, resume_at=resume_at) as writer,
        tqdm(total=len(files), initial=len(done), desc="prepare", unit="photo") as bar,
        closing(_in_order(look, waiting, threads)) as seen,
    ):
        lines = _written(zip(waiting, seen, strict=True), writer, done)
        while new := list(islice(lines, EVERY)):
            writer.sync()
            report.append(new)
            bar.update(len(new))
        if all(line.outcome != KEPT for line in report.lines):
            raise ValueError(f"no photograph gave a crop; {report.part} tells why")


def _done(out: Path, report: Report, files: Sequence[str]) -> list[Line]:
    """The lines whose crops are there, which are those of the first files."""
    part = out.with_suffix(".rec.part")
    there = part.stat().st_size if part.exists() else 0
    report.cut(sum(line.rec_bytes <= there for line in report.lines))
    for line, file in zip(report.lines, [*files, *[None] * len(report.lines)], strict=False):
        if line.file != file:
            raise ValueError(
                f"{report.part} has {line.file} where the folder has {file or 'no more'}: it was "
                f"begun with other photographs; remove it and {part.name} to begin anew"
            )
    return list(report.lines)


def _written(
    seen: Iterable[tuple[str, Seen]], writer: RecordWriter, done: Sequence[Line]
) -> Iterator[Line]:
    """Writes the crops, person by person; the lines that tell of it."""
    last = next((line for line in reversed(done) if line.label is not None), None)
    person, label = (last.person, last.label) if last else (None, -1)
    for file, photograph in seen:
        if photograph.jpeg:
            if person != _person(file):
                person, label = _person(file), label + 1
            writer.add(label, photograph.jpeg)
        yield Line(
            file=file,
            person=_person(file),
            outcome=photograph.outcome,
            detail=photograph.detail,
            faces=photograph.faces,
            label=label if photograph.jpeg else None,
            rec_bytes=writer.end,
        )


def _in_order(look: Callable[[str], Seen], files: Iterable[str], threads: int) -> Iterator[Seen]:
    """What is seen in each file, looked at side by side and a few ahead."""
    coming: deque[Future[Seen]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for file in files:
                coming.append(pool.submit(look, file))
                if len(coming) == 4 * threads:
                    yield coming.popleft().result()
            while coming:
                yield coming.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


# One photograph


def _looker(folder: Path, size: int) -> Callable[[str], Seen]:
    cascade = open_detector()
    canvas = Canvas(size, size, IDENTITY_CANVAS.template_52 * (size / IDENTITY_CANVAS.width))
    return lambda file: look_at(folder, file, cascade, canvas)


def look_at(folder: Path, file: str, cascade: Cascade, canvas: Canvas) -> Seen:
    """The one face of a photograph as a crop, or why there is none."""
    if not _person(file):
        return Seen("no person", "it lies in no person's folder")
    try:
        data = (folder / file).read_bytes()
        photograph = read_photograph(data, max_bytes=MAX_BYTES, max_pixels=MAX_PIXELS)
    except (ImageError, OSError) as error:
        return Seen("unreadable", str(error))
    faces = detect_faces(photograph, cascade, min_face_px=MIN_FACE_PX)
    if not faces:
        return Seen("no face", f"none of at least {MIN_FACE_PX} px was found")
    face = max(faces, key=lambda face: _worth(face, photograph))
    inter_eye_px = float(np.hypot(*(face.landmarks_52[1] - face.landmarks_52[0])))
    if inter_eye_px < MIN_INTER_EYE_PX:
        detail = f"the eyes are {inter_eye_px:.1f} px apart; {MIN_INTER_EYE_PX} are asked for"
        return Seen("too small", detail, len(faces))
    crop = align_crops(photograph, [face.landmarks_52], canvas)[0]
    return Seen(KEPT, faces=len(faces), jpeg=as_jpeg(crop))


def as_jpeg(crop_rgb: NDArray[np.uint8]) -> bytes:
    """The crop as a JPEG of quality 95 that keeps its colour at full size."""
    return cv2.imencode(".jpg", crop_rgb[:, :, ::-1], JPEG)[1].tobytes()


def _worth(face: Face, photograph: Photograph) -> float:
    """Area less twice the squared distance from the centre, in px^2, as David Sandberg's facenet
    chooses among faces."""
    box = face.box
    across = box.x + box.width / 2 - photograph.width / 2
    down = box.y + box.height / 2 - photograph.height / 2
    return box.area - 2 * (across**2 + down**2)


def _person(file: str) -> str:
    """The outermost folder of a file; empty where it lies in none."""
    return file.partition("/")[0] if "/" in file else ""


def _summary(lines: Sequence[Line], skipped: dict[str, int], report: Path) -> Prepared:
    outcomes = Counter(line.outcome for line in lines)
    kept = {line.person for line in lines if line.outcome == KEPT}
    without = sorted({line.person for line in lines if line.person} - kept)
    return Prepared(
        kept=outcomes.pop(KEPT),
        rejected=dict(outcomes.most_common()),
        skipped=skipped,
        people=len(kept),
        without_crop=without,
        report=report,
    )
