"""The `mien` command: enroll, identify, verify, analyze, models, erase and export-person ask the
API; serve and the others work on the data folder itself (docs/commands.md).

The client's commands speak HTTP: to a server (--url), or, without one, to the application run
inside this process on the local data folder. So one path answers both, and fields, defaults,
problems and repeats are the API's own: calling recognition here would be a second way of saying
them, which could come to differ.

MIEN_URL is a server for commands without --url and --data. A server that asks for a key is shown
that of MIEN_KEY.

Exit status: 0 done; 1 some photographs of an enrolment or rows of an import were refused, or an
audit log does not hold; 2 it could not be done, and stderr says what was wrong.
"""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from service.cli import audit, imports, keys, privacy
from service.cli.analyze import analyze_all, draw_analysis, print_analyses, require_one
from service.cli.backup import backup, restore
from service.cli.calibrate import calibrate_folder
from service.cli.door import (
    Place,
    Refused,
    Unable,
    answer_of,
    bytes_of,
    open_service,
    place_of,
    post,
    require_data,
    shown,
)
from service.cli.folder import Outcome, enroll_folder, photographs_of
from service.cli.plain import complain, err, plain_errors
from service.cli.tables import (
    print_calibration,
    print_identities,
    print_json,
    print_outcome,
    print_table,
    print_threshold,
)
from service.settings import Settings, client_url, read_settings

app = typer.Typer(
    help="Mien, a face service. Settings are MIEN_* variables, see docs/settings.md.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command()(backup)
app.command()(restore)
app.add_typer(audit.app, name="audit")
app.add_typer(imports.app, name="import")
app.add_typer(keys.app, name="keys")
app.add_typer(privacy.keys_app, name="template-keys")
for command in (privacy.export_person, privacy.erase, privacy.sweep):
    app.command()(command)

Url = Annotated[
    str | None,
    typer.Option(
        help="A server, as http://127.0.0.1:8000; else MIEN_URL; without, the work is done here."
    ),
]
Data = Annotated[
    Path | None, typer.Option(help="The data folder, in place of a server; else MIEN_DATA.")
]
Gallery = Annotated[str, typer.Option(help="The gallery that is meant.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]
Photograph = Annotated[Path, typer.Argument(exists=True, dir_okay=False, readable=True)]
Threshold = Annotated[float | None, typer.Option(help="The least similarity of a match.")]
Population = Annotated[
    str | None,
    typer.Option(
        help="Whose false match rate is meant: calibration, worst or one of the calibration's."
    ),
]


@app.command()
def serve(
    new_gallery: Annotated[
        bool,
        typer.Option(
            "--new-gallery",
            help="Begin an empty gallery even where the one that was there is missing or empty.",
        ),
    ] = False,
) -> None:
    """Serve until told to stop, as MIEN_HOST, MIEN_PORT, MIEN_WORKERS and the others say."""
    with plain_errors():
        from service.server import serve as run  # here: a client needs no networks

        run(read_settings(), new_gallery=new_gallery)


@app.command()
def enroll(
    folder: Annotated[Path, typer.Argument(exists=True, file_okay=False)],
    gallery: Gallery = "default",
    face: Annotated[str, typer.Option(help="only: one face a photograph; or largest.")] = "only",
    quality: Annotated[str, typer.Option(help="off, standard or strict.")] = "off",
    consent: Annotated[
        str | None, typer.Option(help="Everybody's, as JSON: basis, time, reference.")
    ] = None,
    again: Annotated[
        bool,
        typer.Option("--again", help="Photographs too that were enrolled and erased since."),
    ] = False,
    url: Url = None,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Enrol a folder: a sub-folder a person, its name their id and name, in it their photographs.

    Run it again to go on after a break: within a day nothing is enrolled twice, since each
    photograph goes with an Idempotency-Key made of gallery, person and bytes. Whoever is there
    keeps their name. A photograph whose person or face was erased within the day is refused,
    unless --again says that it is meant. Exit status 1: some photographs were refused, or enrolled
    before with options that ask for less; the others are enrolled.
    """
    outcome = Outcome(gallery)
    with plain_errors():
        photographs = photographs_of(folder, outcome.skipped)
        if not photographs:
            raise Unable(f"{folder} has no photographs in folders of persons")
        fields = {"gallery": gallery, "face": face, "quality": quality, "consent": consent}
        place = place_of(url, data)
        asyncio.run(enroll_folder(place, folder, photographs, fields, outcome, err, again=again))
    if as_json:
        print_json(vars(outcome))
    else:
        print_outcome(outcome)
    raise typer.Exit(1 if outcome.refused or outcome.otherwise else 0)


@app.command()
def identify(
    images: list[Photograph],
    gallery: Gallery = "default",
    top_k: Annotated[int, typer.Option(help="Candidates a face, one a person.")] = 5,
    threshold: Threshold = None,
    target_fpir: Annotated[
        float | None, typer.Option(help="How often a stranger may match anyone.")
    ] = None,
    population: Population = None,
    url: Url = None,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Who is this? Each face of each photograph, with the gallery's people most like it."""
    fields = {
        "gallery": gallery,
        "top_k": top_k,
        "threshold": threshold,
        "target_fpir": target_fpir,
        "population": population,
    }
    with plain_errors():
        place = place_of(url, data)
        require_data(place, "enrol somebody")
        found = asyncio.run(_identify_all(place, images, fields))
    if as_json:
        print_json(found)
    else:
        print_identities(found)
    _end_with(found)


@app.command()
def verify(
    a: Photograph,
    b: Photograph,
    threshold: Threshold = None,
    target_fmr: Annotated[
        float | None, typer.Option(help="How often two people may be taken for one.")
    ] = None,
    calibration: Annotated[
        str | None, typer.Option(help="One of your own, see mien calibrate; else the model's.")
    ] = None,
    population: Population = None,
    face: Annotated[str, typer.Option(help="largest; or only: refuse several faces.")] = "largest",
    url: Url = None,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Are these two the same person?"""
    fields = {
        "threshold": threshold,
        "target_fmr": target_fmr,
        "calibration": calibration,
        "population": population,
        "face": face,
    }

    async def ask(place: Place) -> Any:
        async with open_service(place) as client:
            images = [("image_a", bytes_of(a)), ("image_b", bytes_of(b))]
            try:
                return answer_of(await post(client, "/verify", fields, images))
            except Refused as error:
                file = {"image_a": a, "image_b": b}.get(error.problem.get("image", ""))
                raise error if file is None else Unable(f"{shown(file)}: {error}") from error

    with plain_errors():
        place: Place = place_of(url, data)
        if calibration is None and isinstance(place, Settings):
            place = None  # nothing of the data folder is asked
        require_data(place, "measure a calibration")
        answer = asyncio.run(ask(place))
    if as_json:
        print_json(answer)
        return
    typer.echo(f"{answer['decision']}: similarity {answer['similarity']:.3f}")
    print_threshold(answer["threshold"])


@app.command()
def analyze(
    images: list[Photograph],
    features: Annotated[
        str | None,
        typer.Option(
            help="Of expression, attributes, quality, identity, embedding, with commas between; "
            "else all that there are but embedding."
        ),
    ] = None,
    gallery: Annotated[
        str | None, typer.Option(help="Whose people are looked for; else nobody's.")
    ] = None,
    draw: Annotated[
        Path | None, typer.Option(help="A .png: the one photograph, its faces drawn in.")
    ] = None,
    url: Url = None,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """What does each face show? Expression, attributes, quality and, with --gallery, identity.

    A picture of --draw has the table's numbers. A name in letters that cannot be drawn is left out
    of it, and told on stderr.
    """
    with plain_errors():
        if draw is not None:
            require_one(images, draw)
        place: Place = place_of(url, data)
        if gallery is None and isinstance(place, Settings) and "identity" not in (features or ""):
            place = None  # nothing of the data folder is asked
        require_data(place, "enrol somebody")
        found = asyncio.run(analyze_all(place, images, features, {"gallery": gallery}))
        unnamed = draw_analysis(images[0], found[0]["answer"], draw) if draw else []
    for name in unnamed:
        complain(f"its letters cannot be drawn: {name}")
    if as_json:
        print_json(found)
    else:
        print_analyses(found)
    _end_with(found)


@app.command()
def calibrate(
    folder: Annotated[Path, typer.Argument(exists=True, file_okay=False)],
    name: Annotated[
        str | None, typer.Option(help="What it is to be called; else the folder's name.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="A network's folder in MIEN_MODELS; else MIEN_RECOGNITION."),
    ] = None,
    strangers: Annotated[
        Path | None,
        typer.Option(
            exists=True, file_okay=False, help="A folder of strangers, one photograph of each."
        ),
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="The data folder that keeps it; else MIEN_DATA.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Measure error rates on your own people: a sub-folder a person, two photographs or more each.

    Writes thresholds by error rate, with their intervals, to calibrations/NAME.json in the data
    folder, where a server finds them without a restart: bind a gallery to NAME. At least ten people
    are needed, and many more for low rates, see docs/calibration.md. Photographs that are left out,
    or look as if they lay in the wrong folder, are listed; nothing of them is written.

    With --strangers the false match rate is measured a second time, among those strangers, in
    whatever sub-folders they lie: their photographs are easier to come by than people's with
    several. population=strangers or population=worst then decides by it.
    """
    given = {"recognition": model, "data": data}
    with plain_errors():
        settings = read_settings(workers=1, **{k: v for k, v in given.items() if v is not None})
        report = calibrate_folder(settings, folder, name, strangers, err)
    if as_json:
        print_json(vars(report))
    else:
        print_calibration(report)


@app.command()
def models(url: Url = None, as_json: AsJson = False) -> None:
    """The networks that are served."""

    async def ask() -> Any:
        async with open_service(url or client_url()) as client:
            return answer_of(await client.get("/models"))

    with plain_errors():
        items = asyncio.run(ask())["items"]
    if as_json:
        print_json(items)
        return
    columns = ("name", "task", "space", "provider", "threads")
    print_table(
        (*columns, "licence"),
        [[*(model[name] for name in columns), model["manifest"].get("licence")] for model in items],
    )


async def _identify_all(
    place: str | Settings, images: Sequence[Path], fields: dict[str, Any]
) -> list[dict[str, Any]]:
    """Each photograph's answer, or the problem that the photograph itself has."""
    found = []
    async with open_service(place) as client:
        for path in images:
            entry: dict[str, Any] = {"file": shown(path), "answer": None, "problem": None}
            try:
                image = ("image", bytes_of(path))
                entry["answer"] = answer_of(await post(client, "/identify", fields, [image]))
            except Refused as error:
                if not error.of_one_file:
                    raise
                entry["problem"] = error.problem
            found.append(entry)
    return found


def _end_with(found: Sequence[dict[str, Any]]) -> None:
    """Names the photographs that had problems of their own; ends with status 2 where any had."""
    failed = [entry for entry in found if entry["problem"]]
    for entry in failed:
        complain(f"{entry['file']}: {Refused(entry['problem'])}")
    raise typer.Exit(2 if failed else 0)
