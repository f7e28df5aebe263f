"""`mien import`: what other programs kept of people, enrolled in a data folder.

A server may serve the folder meanwhile. What was imported for a person is noted in their metadata
(`imported`), so that the same command again goes on where it was and enrols nothing twice, whenever
that is. Exit status 1: something was refused, and all else is there.
"""

import asyncio
import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Final
from urllib.parse import quote

import httpx
import typer

from service.cli.door import Refused, Unable, answer_of, open_service, post
from service.cli.folder import progress_bar
from service.cli.plain import complain, err, plain_errors
from service.cli.record import note_in_audit
from service.cli.tables import print_json, print_table
from service.errors import FieldInvalid, ImportRefused
from service.imports.compreface import Dump, Subject, read_dump, services_of
from service.imports.embeddings import Read, read_embeddings
from service.imports.people import enroll_person, with_import
from service.settings import Settings, read_settings

app = typer.Typer(
    help="Enrol what other programs kept, see docs/backup.md.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
# A person's photographs go in one call, so that they are enrolled whole or not at all.
_MOST_IMAGES: Final = 1000
_MOST_BYTES: Final = 2**33
_IDS_AN_ENTRY: Final = 50  # of the audit log; an id in JSON has up to 1.5 KiB

Gallery = Annotated[str, typer.Option(help="The gallery that is meant.")]
Data = Annotated[Path | None, typer.Option(help="The data folder; else MIEN_DATA.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@dataclass
class Outcome:
    """What became of an import. enrolled: persons, with how many faces and whether they were there
    before; refused: what was not taken, each with its reason."""

    gallery: str
    enrolled: list[dict[str, Any]] = field(default_factory=list)
    refused: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@app.command()
def embeddings(
    path: Annotated[Path, typer.Argument(exists=True, help="A .npz or .csv, or a folder of them.")],
    gallery: Gallery = "default",
    space: Annotated[
        str | None, typer.Option(help="The space they are of, where the file does not say it.")
    ] = None,
    normalize: Annotated[
        bool, typer.Option("--normalize", help="Scale each to unit length.")
    ] = False,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Enrol people by embeddings of the network that is served; those of another are refused."""
    outcome = Outcome(gallery)
    with plain_errors():
        settings = _local(data)
        served = _space_of(settings)
        read = read_embeddings(path, space=served, said=space, normalize=normalize)
        outcome.refused += [asdict(refusal) for refusal in read.refused]
        with _alone_in(settings.data):
            try:
                _enroll_people(settings, served, read, outcome)
            finally:  # who was enrolled before it was broken off is there
                _note(settings, "embeddings", outcome)
    _end_with(outcome, as_json=as_json)


@app.command()
def compreface(
    dump: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="From pg_dump.")],
    gallery: Gallery = "default",
    service: Annotated[
        str | None, typer.Option(help="The beginning of a service's API key: its subjects alone.")
    ] = None,
    face: Annotated[str, typer.Option(help="only: one face a photograph; or largest.")] = "only",
    quality: Annotated[str, typer.Option(help="off, standard or strict.")] = "off",
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Enrol the photographs that CompreFace kept anew, by a dump of its database.

    Its embeddings are another network's and of no use here. A subject becomes a person, their name
    the id and the name.
    """
    outcome = Outcome(gallery)
    with plain_errors():
        settings = _local(data)
        found = read_dump(dump)
        subjects = _subjects_of(found, service)
        if found.calculators:
            networks = ", ".join(sorted(found.calculators))
            outcome.notes.append(f"its embeddings, of {networks}, are of other spaces: not taken")
        fields = {"gallery": gallery, "face": face, "quality": quality}
        with _alone_in(settings.data):
            try:
                asyncio.run(_enroll_subjects(settings, found, subjects, fields, outcome))
            finally:
                _note(settings, "compreface", outcome)
    _end_with(outcome, as_json=as_json)


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """No other import enrols in the data folder meanwhile: of two of the same file each would look
    whom it has to enrol before the other has. Raises Unable."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    held = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Unable(f"another import into {folder} is under way: wait for its end") from error
        yield
    finally:
        os.close(held)


def _note(settings: Settings, kind: str, outcome: Outcome) -> None:
    """Has the audit log say what was imported."""
    new = [entry["person_id"] for entry in outcome.enrolled if not entry["before"]]
    for start in range(0, len(new), _IDS_AN_ENTRY):
        some = new[start : start + _IDS_AN_ENTRY]
        note_in_audit(settings.data, "import", kind=kind, gallery=outcome.gallery, person_ids=some)


def _local(data: Path | None) -> Settings:
    return read_settings(workers=1, **({} if data is None else {"data": data}))


def _space_of(settings: Settings) -> str:
    """The space of the network that is served."""
    from service.inference.artefact import load_artefact  # here: no other command needs networks

    folder = settings.models / settings.recognition
    return load_artefact(folder, device=settings.device).space


def _enroll_people(settings: Settings, space: str, read: Read, outcome: Outcome) -> None:
    from service.app import open_store

    store = open_store(settings)
    bar = progress_bar(err)
    try:
        with bar:
            for person in bar.track(read.people, description="importing"):
                about = {"person_id": person.id, "faces": len(person.embeddings_ND)}
                try:
                    new = enroll_person(store, outcome.gallery, person, space=space)
                except FieldInvalid as error:
                    outcome.refused.append({"person_id": person.id, "reason": str(error)})
                else:
                    outcome.enrolled.append({**about, "before": not new})
    finally:
        store.close()


def _subjects_of(dump: Dump, service: str | None) -> list[Subject]:
    """The subjects of one service. Raises Unable where it is not clear which one is meant."""
    counts = services_of(dump)
    if not counts:
        raise Unable(f"{dump.path} has no subject")
    meant = [key for key in counts if service is None or key.startswith(service)]
    if len(meant) != 1:
        there = ", ".join(f"{key[:8]}… with {count} subjects" for key, count in counts.items())
        raise Unable(f"name one service by the beginning of its API key (--service): {there}")
    return [subject for subject in dump.subjects if subject.service == meant[0]]


async def _enroll_subjects(
    settings: Settings,
    dump: Dump,
    subjects: Sequence[Subject],
    fields: dict[str, Any],
    outcome: Outcome,
) -> None:
    roomy = {"max_images": _MOST_IMAGES, "max_body_bytes": _MOST_BYTES}
    bar = progress_bar(err)
    async with open_service(settings.model_copy(update=roomy)) as client:
        await _require_space(client, fields["gallery"])
        with bar:
            for subject in bar.track(subjects, description="importing"):
                about = {"person_id": subject.name}
                if subject.lost:
                    reason = f"no photograph of {subject.lost} of their faces was kept"
                    outcome.refused.append({**about, "reason": reason})
                if not subject.photographs:
                    continue
                try:
                    await _enroll_subject(client, dump, subject, fields, outcome)
                except ImportRefused as error:  # a photograph of theirs
                    outcome.refused.append({**about, "reason": error.reason})
                except Refused as error:
                    if not error.of_one_file:
                        raise
                    outcome.refused += _refusals(subject, error.problem)


async def _require_space(client: httpx.AsyncClient, gallery: str) -> None:
    """Raises Unable where the gallery is of another network: who was imported into it before is
    there, and cannot be found by the one that is served."""
    holds = answer_of(await client.get(f"/galleries/{quote(gallery, safe='')}"))["space"]
    models = answer_of(await client.get("/models"))["items"]
    [served] = [model["space"] for model in models if model["task"] == "recognition"]
    if holds not in (None, served):
        raise Unable(
            f"the gallery {gallery!r} holds embeddings of the space {holds!r} and {served!r} is "
            "served: import into a new gallery"
        )


async def _enroll_subject(
    client: httpx.AsyncClient,
    dump: Dump,
    subject: Subject,
    fields: dict[str, Any],
    outcome: Outcome,
) -> None:
    """Enrols a subject's photographs in one call, unless that was done before. Raises Refused."""
    images = [dump.photograph(image_id) for image_id in subject.photographs]
    digests = b"".join(hashlib.sha256(image).digest() for image in images)
    content = hashlib.blake2b(digests, digest_size=16).hexdigest()
    about = {"person_id": subject.name}
    noted = with_import(await _metadata_of(client, fields["gallery"], subject.name), content)
    if noted is None:
        outcome.enrolled.append({**about, "faces": 0, "before": True})
        return
    given = {**fields, **about, "name_if_new": subject.name, "metadata": json.dumps(noted)}
    answer = answer_of(await post(client, "/enroll", given, [("image", i) for i in images]))
    outcome.enrolled.append({**about, "faces": len(answer["enrolled"]), "before": False})
    for refused in answer["refused"]:
        outcome.refused.append(_refusal(subject, refused["image"], refused["problem"]))


async def _metadata_of(client: httpx.AsyncClient, gallery: str, person_id: str) -> dict[str, Any]:
    path = f"/galleries/{quote(gallery, safe='')}/persons/{quote(person_id, safe='')}"
    try:
        metadata: dict[str, Any] = answer_of(await client.get(path))["metadata"]
    except Refused as error:
        if error.problem["type"] != "/problems/person-unknown":
            raise
        return {}
    return metadata


def _refusals(subject: Subject, problem: dict[str, Any]) -> list[dict[str, Any]]:
    """The refusals of an enrolment of which nothing was taken."""
    if "refused" in problem:
        return [_refusal(subject, one["image"], one["problem"]) for one in problem["refused"]]
    if len(subject.photographs) == 1:
        return [_refusal(subject, 0, problem)]
    return [{"person_id": subject.name, "reason": str(Refused(problem))}]


def _refusal(subject: Subject, image: int, problem: dict[str, Any]) -> dict[str, Any]:
    where = f"img {subject.photographs[image]}"
    return {"where": where, "person_id": subject.name, "reason": str(Refused(problem))}


def _end_with(outcome: Outcome, *, as_json: bool) -> None:
    """Tells what became of it; ends with status 1 where something was refused."""
    if as_json:
        print_json(asdict(outcome))
        raise typer.Exit(1 if outcome.refused else 0)
    before = sum(entry["before"] for entry in outcome.enrolled)
    faces = sum(entry["faces"] for entry in outcome.enrolled if not entry["before"])
    typer.echo(
        f"{len(outcome.enrolled) - before} persons with {faces} faces enrolled, {before} there "
        f"before (gallery {outcome.gallery}); {len(outcome.refused)} refusals"
    )
    for note in outcome.notes:
        complain(note)
    if outcome.refused:
        rows = [[e.get("where", ""), e["person_id"], e["reason"]] for e in outcome.refused]
        print_table(("refused", "person", "why"), rows)
    raise typer.Exit(1 if outcome.refused else 0)
