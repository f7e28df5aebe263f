"""`mien analyze`: what faces show, as a table and as a picture."""

import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import httpx
import numpy as np

from service.cli.door import Place, Refused, Unable, answer_of, bytes_of, open_service, post, shown
from service.cli.tables import print_table, print_threshold
from service.imagefile import read_photograph
from service.vision.draw import Mark, as_png, can_draw, draw_faces
from service.vision.faces import Box

_LEVEL: Final = "standard"  # of the quality gate whose failures are listed
_NOBODY: Final = {"": "no face"}
_LARGEST: Final = 2**40  # of a file, and of its pixels: the service has refused what is too large


async def analyze_all(
    place: Place, images: Sequence[Path], features: str | None, fields: dict[str, Any]
) -> list[dict[str, Any]]:
    """Each photograph's answer, or the problem that the photograph itself has.

    features: with commas; None: all that the service has, but embeddings; and identity where fields
    name a gallery. fields: of identity and attributes, None where they are not given.
    """
    found = []
    async with open_service(place) as client:
        asked = features if features is not None else await _features(client, fields)
        for path in images:
            entry: dict[str, Any] = {"file": shown(path), "answer": None, "problem": None}
            try:
                image = ("image", bytes_of(path))
                given = {"features": asked, **fields}
                entry["answer"] = answer_of(await post(client, "/analyze", given, [image]))
            except Refused as error:
                if not error.of_one_file:
                    raise
                entry["problem"] = error.problem
            found.append(entry)
    return found


async def _features(client: httpx.AsyncClient, fields: dict[str, Any]) -> str:
    served = {model["task"] for model in answer_of(await client.get("/models"))["items"]}
    features = [task for task in ("expression", "attributes") if task in served]
    identity = ["identity"] if fields["gallery"] is not None else []
    return ",".join([*features, "quality", *identity])


def print_analyses(found: Sequence[dict[str, Any]]) -> None:
    """A table a photograph, with a row a face and a column for what was asked for."""
    answers = [entry for entry in found if entry["answer"]]
    for entry in answers:
        faces = entry["answer"]["images"][0]["faces"]
        rows = [_row(number, face) for number, face in enumerate(faces, 1)] or [_NOBODY]
        print_table(list(rows[0]), [list(row.values()) for row in rows], title=entry["file"])
    for entry in answers[:1]:
        if "threshold" in entry["answer"]:
            print_threshold(entry["answer"]["threshold"])


def draw_analysis(image: Path, answer: dict[str, Any] | None, out: Path) -> list[str]:
    """Draws a photograph's faces; the names that could not be drawn, with their faces' numbers.

    The picture has the table's numbers, so that nobody goes unnamed. Nothing is drawn without an
    answer. Raises OSError.
    """
    if answer is None:
        return []
    photograph = read_photograph(bytes_of(image), max_bytes=_LARGEST, max_pixels=_LARGEST)
    marks, unnamed = [], []
    for number, face in enumerate(answer["images"][0]["faces"], 1):
        name = _name(face)
        if not can_draw(name):
            unnamed.append(f"{number} {name}")
            name = ""
        lines = [f"{number} {name}".strip(), _expression(face) if face.get("expression") else ""]
        box, landmarks = Box(**face["box"]), np.array(face["landmarks"])
        marks.append(Mark(box, landmarks, str(number), tuple(filter(None, lines))))
    out.write_bytes(as_png(draw_faces(photograph, marks)))
    return unnamed


def require_one(images: Sequence[Path], out: Path) -> None:
    """Raises Unable where there is not one photograph to draw, or no picture to draw it in."""
    if len(images) != 1:
        raise Unable(f"--draw takes one photograph, and {len(images)} were given")
    if out.suffix.lower() != ".png":
        raise Unable(f"--draw writes a .png, not {shown(out)}")


def _row(number: int, face: dict[str, Any]) -> dict[str, str]:
    """A face's cells by their columns: the same for all faces of a call."""
    box = "{x:.0f},{y:.0f} {width:.0f}x{height:.0f}".format(**face["box"])
    row = {"": str(number), "box": box}
    if "candidates" in face:
        best = [f"{c['name'] or c['person_id']} {c['similarity']:.3f}" for c in face["candidates"]]
        row["identity"] = " ".join([face["decision"], *best[:1]])
    if "expression" in face:
        row["expression"] = _expression(face)
    if "attributes" in face:
        row["attributes"] = _attributes(face)
    if "quality_gate" in face:
        row["quality"] = f"{face['quality']['score']:.2f}"
        row[f"fails {_LEVEL}"] = _failures(face)
    return row


def _expression(face: dict[str, Any]) -> str:
    expression = face["expression"]
    if expression is None:
        return _refusal(face, "expression")
    return f"{expression['label']} {100 * expression['confidence']:.0f} %"


def _attributes(face: dict[str, Any]) -> str:
    if face["attributes"] is None:
        return _refusal(face, "attributes")
    return ", ".join(name for name, told in face["attributes"].items() if told["present"])


def _refusal(face: dict[str, Any], feature: str) -> str:
    [problem] = [one["problem"] for one in face["refused"] if one["feature"] == feature]
    return str(problem["title"]).lower()


def _failures(face: dict[str, Any]) -> str:
    failed = [c for c in face["quality_gate"][_LEVEL]["checks"] if not c["passed"]]
    return ", ".join(f"{c['reason']} ({c['value']:g})" for c in failed)


def _name(face: dict[str, Any]) -> str:
    """The name of whom a face matches, or may; nothing where it matches nobody."""
    if face.get("decision") not in ("match", "uncertain"):
        return ""
    best = face["candidates"][0]
    name = unicodedata.normalize("NFC", best["name"] or best["person_id"])
    return name if face["decision"] == "match" else f"{name}?"
