"""A folder of people's photographs: which are sent, one call each, and what an enrolment made of
them."""

import asyncio
import hashlib
import itertools
import json
import os
import unicodedata
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress

from service.cli.door import Refused, Unable, answer_of, bytes_of, open_service, post, shown
from service.people_folder import PHOTOGRAPH_SUFFIXES, require_folder_per_person, system_reason
from service.settings import Settings

# Of each option the values from the least demanding on.
DEMANDS: Final = {"face": ("largest", "only"), "quality": ("off", "standard", "strict")}
MOST_ERASURES: Final = 100  # of one photograph within a day
_ERASED: Final = "/problems/answer-erased"
_REUSED: Final = "/problems/idempotency-key-reused"
AT_ONCE: Final = 4  # calls to a server; in this process there are as many as cores


@dataclass
class Outcome:
    """Results of the files of an enrollment; skipped are those that were never sent.

    An enrolled one has face_id, before (an earlier run enrolled it), other_options (with options
    that ask for less than these, so that these were not applied; face_id is None) and warnings.
    """

    gallery: str
    enrolled: list[dict[str, Any]] = field(default_factory=list)
    refused: list[dict[str, Any]] = field(default_factory=list)
    skipped: list[dict[str, Any]] = field(default_factory=list)

    @property
    def otherwise(self) -> list[dict[str, Any]]:
        """Those that an earlier run enrolled with options that ask for less."""
        return [entry for entry in self.enrolled if entry["other_options"]]

    @property
    def erased(self) -> list[dict[str, Any]]:
        """Those refused since their person or face was erased after an earlier run."""
        return [entry for entry in self.refused if entry["problem"].get("type") == _ERASED]


def photographs_of(folder: Path, skipped: list[dict[str, Any]]) -> list[tuple[str, Path]]:
    """(person, file) for each photograph in a person's folder or below; notes what is skipped.

    Raises Unable if the folder seems to be one level too high (people_folder.py).
    """
    photographs = list(_photographs_below(folder, skipped))
    try:
        files = (path.relative_to(folder).as_posix() for _, path in photographs)
        require_folder_per_person(folder, files)
    except ValueError as error:
        raise Unable(str(error)) from error
    return photographs


def _photographs_below(folder: Path, skipped: list[dict[str, Any]]) -> Iterator[tuple[str, Path]]:
    for path in sorted(folder.rglob("*")):
        if path.is_dir() and not path.is_symlink() and os.access(path, os.R_OK | os.X_OK):
            continue  # what lies in it comes by itself
        inside = path.relative_to(folder)
        reason = _unfit(path, inside)
        if reason is None:
            yield unicodedata.normalize("NFC", inside.parts[0]), path
        else:
            skipped.append({"file": shown(inside), "reason": reason})


def strangers_of(folder: Path, skipped: list[dict[str, Any]]) -> Iterator[Path]:
    """Each photograph in a folder or below, in whatever sub-folder; notes what is skipped."""
    for path in sorted(folder.rglob("*")):
        if path.is_dir() and not path.is_symlink() and os.access(path, os.R_OK | os.X_OK):
            continue  # what lies in it comes by itself
        reason = _unfit(path, "strangers" / path.relative_to(folder))
        if reason is None:
            yield path
        else:
            skipped.append({"file": shown(path), "reason": reason})


def _unfit(path: Path, inside: Path) -> str | None:
    """Why it is no person's photograph, by its path in the folder too; None where it is one."""
    if (reason := system_reason(inside.as_posix())) is not None:
        return reason
    if any(part.startswith(".") for part in inside.parts):
        return "hidden"
    if path.is_dir():
        return "a link to a folder" if path.is_symlink() else "a folder that cannot be read"
    if not path.is_file():
        return "no file, or a link to none"
    if inside.suffix.lower() not in PHOTOGRAPH_SUFFIXES:
        return "not named as a photograph"
    if len(inside.parts) == 1:
        return "in no person's folder"
    return None if shown(inside) == str(inside) else "its path is not UTF-8"


async def enroll_folder(
    place: str | Settings,
    folder: Path,
    photographs: Sequence[tuple[str, Path]],
    fields: dict[str, Any],
    outcome: Outcome,
    console: Console,
    *,
    again: bool,
) -> None:
    """Enrols every photograph, and notes what became of it. again: what was erased too."""

    async def send(client: httpx.AsyncClient, person: str, path: Path) -> None:
        about = {"file": shown(path.relative_to(folder)), "person_id": person}
        try:
            answer = await _enroll_one(client, person, path, fields, again=again)
        except Refused as error:
            if not error.of_one_file:
                raise
            outcome.refused.append({**about, "problem": error.problem})
        else:
            outcome.enrolled.append({**about, **answer})

    async with open_service(place) as client:
        at_once = place.cores_a_worker if isinstance(place, Settings) else AT_ONCE
        bar = progress_bar(console)
        await send_each(client, photographs, send, at_once=at_once, progress=bar, doing="enrolling")


def progress_bar(console: Console) -> Progress:
    """A bar for the console, gone when it is done; none where nobody watches."""
    return Progress(
        *Progress.get_default_columns(),
        MofNCompleteColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )


async def send_each(
    client: httpx.AsyncClient,
    photographs: Sequence[tuple[str, Path]],
    send: Callable[[httpx.AsyncClient, str, Path], Awaitable[None]],
    *,
    at_once: int,
    progress: Progress,
    doing: str,
) -> None:
    """Has every (person, file) sent in a call of its own, a few at once."""
    waiting = iter(photographs)
    task = progress.add_task(doing, total=len(photographs))

    async def work() -> None:
        for person, path in waiting:
            await send(client, person, path)
            progress.advance(task)

    with progress:
        await _side_by_side([work() for _ in range(at_once)])


async def _enroll_one(
    client: httpx.AsyncClient, person: str, path: Path, fields: dict[str, Any], *, again: bool
) -> dict[str, Any]:
    """Result of the photograph, as an entry of Outcome.enrolled. Raises Refused."""
    image = bytes_of(path)
    whose = json.dumps([fields["gallery"], person]).encode()
    key = _digest(whose + hashlib.sha256(image).digest())
    given = {**fields, "person_id": person, "name_if_new": person}
    for _ in range(MOST_ERASURES):
        try:
            return await _enroll_under(client, key, image, given)
        except Refused as error:
            if not again or error.problem.get("type") != _ERASED:
                raise
            erased = error
        # The next key follows from this one, so that a run which is repeated enrols nothing twice.
        key = _digest(f"{key} again".encode())
    raise erased


async def _enroll_under(
    client: httpx.AsyncClient, key: str, image: bytes, fields: dict[str, Any]
) -> dict[str, Any]:
    """The photograph enrolled under a key. A key that an earlier run used with options that ask for
    at least as much is as good: what these ask for was done. Raises Refused."""
    for demanding in _at_least(fields):
        response = await post(
            client, "/enroll", demanding, [("image", image)], headers={"Idempotency-Key": key}
        )
        try:
            answer = answer_of(response)
        except Refused as error:
            if error.problem.get("type") != _REUSED:
                raise
            continue
        before = response.headers.get("Idempotent-Replay") == "true"
        return {
            "face_id": answer["enrolled"][0]["face_id"],
            "before": before,
            "other_options": False,
            "warnings": [] if before else answer["warnings"],
        }
    return {"face_id": None, "before": True, "other_options": True, "warnings": []}


def _at_least(fields: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The fields, and then all that ask for more of a photograph."""
    ladders = [
        values[values.index(fields[name]) :] if fields[name] in values else (fields[name],)
        for name, values in DEMANDS.items()
    ]
    for combination in itertools.product(*ladders):
        yield {**fields, **dict(zip(DEMANDS, combination, strict=True))}


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


async def _side_by_side(works: Sequence[Coroutine[Any, Any, None]]) -> None:
    """Does all; the first failure ends the others and is raised."""
    try:
        async with asyncio.TaskGroup() as group:
            for work in works:
                group.create_task(work)
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None
