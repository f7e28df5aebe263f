"""Measuring a calibration on a folder of people: what is seen, measured, doubted and written.

The photographs go to the application in this process, one call each, as an enrolment's do: what is
measured is what /embeddings answers, by every stage of the service. Files and names stay with the
caller; what is written are counts, rates and what they were measured with.
"""

import asyncio
import hashlib
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import httpx
import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from service.calibration.doubts import ALIKE_FMR, UNLIKE_FMR, find_doubts
from service.calibration.kept import NAME_LIMIT, Calibrations, is_name
from service.calibration.measure import (
    measure_calibration,
    measure_population,
    require_people,
    require_strangers,
    with_populations,
)
from service.cli.door import Refused, Unable, answer_of, bytes_of, open_service, post, shown
from service.cli.folder import photographs_of, progress_bar, send_each, strangers_of
from service.errors import CalibrationError
from service.settings import Settings

STRANGERS: Final = "strangers"  # the population's name
_STRANGER: Final = ""  # in the place of a person's name, which is never empty


@dataclass
class Report:
    """What the command tells; files are paths within the folder.

    calibration: what was written, its curve and tail left out. unlike: photographs that are hardly
    like another of their person; alike: pairs of two people's that are as like as one person's;
    alike_strangers: so of two strangers'.
    """

    name: str
    file: str = ""
    replaced: bool = False
    calibration: dict[str, Any] = field(default_factory=dict)
    left_out: list[dict[str, Any]] = field(default_factory=list)
    several_faces: list[str] = field(default_factory=list)
    skipped: list[dict[str, Any]] = field(default_factory=list)
    unlike: list[dict[str, Any]] = field(default_factory=list)
    alike: list[dict[str, Any]] = field(default_factory=list)
    alike_strangers: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class _Face:
    """The face of a photograph that is measured. person: None for a stranger; embedding: 512
    floats of unit length."""

    person: str | None
    file: str
    embedding: list[float]


@dataclass(frozen=True)
class _Model:
    """The network that embeds. thresholds: the similarity by target FMR of its own calibration."""

    name: str
    space: str
    sha256: str
    thresholds: dict[float, float]


def calibrate_folder(
    settings: Settings, folder: Path, name: str | None, strangers: Path | None, console: Console
) -> Report:
    """The calibration of the folder's people, measured and kept; name: the folder's unless given.

    strangers: a folder of photographs, each of somebody else, that become a population. Raises
    Unable, before the work where that can be told, for a name that cannot be or that is a
    calibration's of another embedding space, and for too few people or strangers.
    """
    report = Report(folder.resolve().name if name is None else name)
    if not is_name(report.name):
        raise Unable(f"{report.name!r} cannot name a calibration: --name takes {NAME_LIMIT}")
    photographs = photographs_of(folder, report.skipped)
    _require_people([person for person, _ in photographs], report)
    others = list(strangers_of(strangers, report.skipped)) if strangers is not None else []
    if strangers is not None:
        _require_strangers(len(others), strangers, report)
    calibrations = Calibrations(settings.calibrations)
    sent = [*photographs, *((_STRANGER, path) for path in others)]
    model, seen = asyncio.run(_embed(settings, folder, sent, calibrations, report, console))
    faces = [face for face in seen if face.person is not None]
    people = _require_people([str(face.person) for face in faces], report)
    embeddings_ND = np.array([face.embedding for face in faces], np.float32)
    block = _measured(embeddings_ND, people, console)
    _doubt(embeddings_ND, people, faces, model, report)
    if strangers is not None:
        unknown = [face for face in seen if face.person is None]
        _require_strangers(len(unknown), strangers, report)
        block = with_populations(block, {STRANGERS: _population(unknown, model, report, console)})
    facts = {
        "model": model.name,
        "space": model.space,
        "graph_sha256": model.sha256,
        "measured": datetime.now(UTC).isoformat(timespec="seconds"),
        "mien": version("mien"),
        "left_out": len(report.left_out),
        "several_faces": len(report.several_faces),
        **block,
    }
    report.file = str(calibrations.keep(report.name, facts).absolute())
    report.calibration = _without_curves(facts)
    return report


def _without_curves(facts: Mapping[str, Any]) -> dict[str, Any]:
    """The facts, and those of populations, without the points of their curves."""
    kept = {k: v for k, v in facts.items() if k not in ("curve", "tail")}
    if "populations" in kept:
        populations = kept["populations"].items()
        kept["populations"] = {name: _without_curves(one) for name, one in populations}
    return kept


async def _embed(
    settings: Settings,
    folder: Path,
    photographs: list[tuple[str, Path]],
    calibrations: Calibrations,
    report: Report,
    console: Console,
) -> tuple[_Model, list[_Face]]:
    """The network, and the largest face of each photograph, in the order of their paths.

    photographs: (person, file), _STRANGER for whoever is of no person's folder.
    """
    faces: list[_Face] = []
    first: dict[str, str] = {}  # of the files of the same bytes

    async def send(client: httpx.AsyncClient, person: str, path: Path) -> None:
        file = shown(path if person == _STRANGER else path.relative_to(folder))
        try:
            image = bytes_of(path)
            same = first.setdefault(hashlib.sha256(image).hexdigest(), file)
            if same != file:
                report.left_out.append({"file": file, "reason": f"the same file as {same}"})
                return
            found = answer_of(await post(client, "/embeddings", {}, [("image", image)]))
        except Refused as error:
            if not error.of_one_file:
                raise
            report.left_out.append({"file": file, "reason": str(error)})
            return
        seen = found["images"][0]["faces"]
        if not seen:
            report.left_out.append({"file": file, "reason": "no face found"})
            return
        if len(seen) > 1:
            report.several_faces.append(file)
        faces.append(_Face(person or None, file, seen[0]["embedding"]))

    with tempfile.TemporaryDirectory(prefix="mien-") as passing:  # no gallery is asked
        nobodys = settings.model_copy(update={"data": Path(passing)})
        async with open_service(nobodys, report=False) as client:
            model = await _model(client, settings.recognition)
            report.replaced = _replaces(calibrations, report.name, model.space)
            await send_each(
                client,
                photographs,
                send,
                at_once=settings.cores_a_worker,
                progress=progress_bar(console),
                doing="embedding",
            )
    report.left_out.sort(key=lambda entry: str(entry["file"]))
    report.several_faces.sort()
    return model, sorted(faces, key=lambda face: (face.person or "", face.file))


async def _model(client: httpx.AsyncClient, folder: str) -> _Model:
    items = answer_of(await client.get("/models"))["items"]
    [found] = (item for item in items if item["task"] == "recognition")
    calibration = answer_of(await client.get(f"/models/{found['name']}/calibration"))
    thresholds = {row["target_fmr"]: row["similarity"] for row in calibration["thresholds"]}
    return _Model(found["name"], found["space"], found["manifest"]["sha256"], thresholds)


def _replaces(calibrations: Calibrations, name: str, space: str) -> bool:
    """Whether there is one of that name. Raises Unable where it is another embedding space's."""
    if name not in calibrations.names():
        return False
    try:
        kept = calibrations.get(name)
    except CalibrationError:  # damaged: it is measured anew
        return True
    if kept.space != space:
        raise Unable(
            f"there is a calibration {name!r} of the embedding space {kept.space}, and this one "
            f"would be of {space}: give it another name with --name"
        )
    return True


def _require_people(whose: list[str], report: Report) -> NDArray[np.int64]:
    """Each photograph's person as a number, from 0. Raises Unable where they are too few."""
    people_N = np.unique(np.array(whose, str), return_inverse=True)[1].astype(np.int64)
    try:
        require_people(people_N)
    except ValueError as error:
        why = f" ({len(report.left_out)} photographs were left out)" if report.left_out else ""
        raise Unable(f"{error}{why}") from error
    return people_N


def _require_strangers(strangers: int, folder: Path, report: Report) -> None:
    """Raises Unable where the strangers are too few."""
    try:
        require_strangers(strangers)
    except ValueError as error:
        why = f" ({len(report.left_out)} photographs were left out)" if report.left_out else ""
        raise Unable(f"{shown(folder)}: {error}{why}") from error


def _population(
    faces: list[_Face], model: _Model, report: Report, console: Console
) -> dict[str, Any]:
    """The strangers' entry of a calibration; notes who among them may be one person."""
    embeddings_ND = np.array([face.embedding for face in faces], np.float32)
    bar = progress_bar(console)
    task = bar.add_task("comparing strangers", total=len(faces))
    with bar:
        population = measure_population(
            embeddings_ND, progress=lambda done, _: bar.update(task, completed=done)
        )
    doubts = find_doubts(
        embeddings_ND,
        np.arange(len(faces)),
        unlike_below=-1,
        alike_from=model.thresholds[ALIKE_FMR],
    )
    report.alike_strangers += [
        {"files": [faces[a].file, faces[b].file], "similarity": round(similarity, 4)}
        for a, b, similarity in doubts.alike
    ]
    return {"data": "strangers, one photograph each", **population}


def _measured(
    embeddings_ND: NDArray[np.float32], people_N: NDArray[np.int64], console: Console
) -> dict[str, Any]:
    bar = progress_bar(console)
    task = bar.add_task("comparing", total=int(people_N.max()) + 1)
    with bar:
        return measure_calibration(
            embeddings_ND,
            people_N,
            progress=lambda done, _: bar.update(task, completed=done),
        )


def _doubt(
    embeddings_ND: NDArray[np.float32],
    people_N: NDArray[np.int64],
    faces: list[_Face],
    model: _Model,
    report: Report,
) -> None:
    doubts = find_doubts(
        embeddings_ND,
        people_N,
        unlike_below=model.thresholds[UNLIKE_FMR],
        alike_from=model.thresholds[ALIKE_FMR],
    )
    report.unlike += [
        {"file": faces[row].file, "similarity": round(similarity, 4)}
        for row, similarity in doubts.unlike
    ]
    report.alike += [
        {"files": [faces[a].file, faces[b].file], "similarity": round(similarity, 4)}
        for a, b, similarity in doubts.alike
    ]
