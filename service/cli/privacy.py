"""What privacy asks for at the command line: `mien erase`, `export-person` and `sweep`, and `mien
template-keys`, the keys that people are sealed with on disk."""

import asyncio
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote

import typer

from service.cli.door import (
    Place,
    Unable,
    answer_of,
    local_settings,
    open_service,
    place_of,
    reported,
    require_data,
    shown,
)
from service.cli.plain import complain, plain_errors
from service.cli.tables import print_json, print_table
from service.guard.audit import FILE as AUDIT
from service.guard.audit import Audit
from service.guard.receipts import Receipts
from service.guard.templates import TemplateKeyFile, add_template_key
from service.settings import Settings

if TYPE_CHECKING:
    from service.gallery.datakeys import DataKeys
    from service.retention import Swept

keys_app = typer.Typer(
    help="The keys that people are sealed with on disk, see docs/gallery.md.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Gallery = Annotated[str, typer.Option(help="The gallery that is meant.")]
Url = Annotated[
    str | None,
    typer.Option(
        help="A server, as http://127.0.0.1:8000; else MIEN_URL; without, the work is done here."
    ),
]
Data = Annotated[Path | None, typer.Option(help="The data folder; else MIEN_DATA.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def export_person(
    person_id: str,
    gallery: Gallery = "default",
    url: Url = None,
    data: Data = None,
) -> None:
    """Print all that is kept of a person, as JSON: record, consent, faces with their embeddings."""
    with plain_errors():
        found = asyncio.run(_ask(_place(url, data), "GET", _path(gallery, person_id) + "/export"))
    print_json(found)


def erase(
    person_id: str,
    gallery: Gallery = "default",
    url: Url = None,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Erase a person with all their faces, and print the receipt."""
    with plain_errors():
        receipt = asyncio.run(_ask(_place(url, data), "DELETE", _path(gallery, person_id)))
    if as_json:
        print_json(receipt)
        return
    if receipt["audit"] is None:
        complain("the audit log cannot be written, and has no entry of this receipt")
    entry = "" if receipt["audit"] is None else f", entry {receipt['audit']} of the audit log"
    typer.echo(f"receipt {receipt['receipt']}{entry}")
    typer.echo(f"{receipt['faces']} faces erased at {receipt['erased']}: {_deeds(receipt)}")


def sweep(
    trust_clock: Annotated[
        bool, typer.Option(help="Erase though the clock leapt: you have looked at it.")
    ] = False,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Erase whom their gallery keeps no longer, now, each with a receipt.

    A running service does so by itself every few minutes. After a leap of the clock of more than a
    day, as after a pause that long, nobody is erased for a day, unless --trust-clock says so.
    """
    with plain_errors():
        from service.gallery import open_gallery  # here: a client needs no index
        from service.retention import sweep as sweep_galleries

        settings = _local(data)
        keys = settings.template_keys
        with reported(settings):
            masters = None if keys is None else TemplateKeyFile(keys)
            store = open_gallery(settings.data, masters=masters)
            try:
                receipts = Receipts(Audit(settings.data / AUDIT))
                swept = sweep_galleries(store, receipts, trust_clock=trust_clock)
            finally:
                store.close()
    if as_json:
        print_json(vars(swept))
    else:
        _print_swept(swept)


@keys_app.command("new")
def new_key(file: Path) -> None:
    """Make a key and put it first in FILE, which is made if it is not there.

    MIEN_TEMPLATE_KEY_FILE names the file; keep it elsewhere than the data, and a copy of it:
    without it the templates are lost. Galleries that are there are sealed at the next start.
    """
    with plain_errors():
        key_id = add_template_key(file)
    typer.echo(key_id)


@keys_app.command("list")
def list_keys(data: Data = None, as_json: AsJson = False) -> None:
    """The keys of MIEN_TEMPLATE_KEY_FILE, the newest first, and how many people each opens."""
    with plain_errors(), _data_keys(data) as (masters, keys):
        counts = keys.by_master()
        rows = [[key_id, counts.get(key_id, 0)] for key_id in masters()]
    if as_json:
        print_json([{"key": key_id, "people": count} for key_id, count in rows])
    else:
        print_table(("key", "people"), rows)


@keys_app.command()
def rotate(data: Data = None) -> None:
    """Wrap everybody's data key under the newest key; a server may run meanwhile.

    First make the newest: `mien template-keys new FILE`. Stopped at any moment, it goes on when it
    is called again. Once done, the older keys open nothing that is kept, and may leave the file;
    copies of data-keys.sqlite3 from before need them still.
    """
    with plain_errors(), _data_keys(data) as (masters, keys):
        done = keys.rewrap()
        newest = next(iter(masters()))
    typer.echo(f"{done} data keys are wrapped anew, all of them under {newest}")


@contextmanager
def _data_keys(data: Path | None) -> "Iterator[tuple[TemplateKeyFile, DataKeys]]":
    """The template keys and the data keys of a data folder, which is reported. Raises Unable if
    it has none."""
    from service.gallery import DATA_KEYS_FILE_NAME
    from service.gallery.datakeys import DataKeys

    settings = _local(data)
    if settings.template_keys is None:
        raise Unable("MIEN_TEMPLATE_KEY_FILE names no file: nothing is sealed")
    path = settings.data.absolute() / DATA_KEYS_FILE_NAME
    if not path.exists():
        raise Unable(f"there is no {shown(path)}: nothing is sealed yet")
    masters = TemplateKeyFile(settings.template_keys)
    with reported(settings), closing(DataKeys(path, masters=masters, patience_s=30.0)) as keys:
        yield masters, keys


async def _ask(place: Place, method: str, path: str) -> Any:
    async with open_service(place) as client:
        return answer_of(await client.request(method, path))


def _place(url: str | None, data: Path | None) -> Place:
    place = place_of(url, data)
    require_data(place, "enrol somebody")
    return place


def _local(data: Path | None) -> Settings:
    settings = local_settings(data)
    if not settings.data.exists():
        raise Unable(f"there is no data folder {shown(settings.data.absolute())}")
    return settings


def _path(gallery: str, person_id: str) -> str:
    """The person's path. Raises Unable for what a path loses: another would be asked for."""
    for text in (gallery, person_id):
        if text in ("", ".", ".."):
            raise Unable(f"{text!r} is the name of no gallery and the id of no person")
    return f"/galleries/{quote(gallery, safe='')}/persons/{quote(person_id, safe='')}"


def _deeds(receipt: dict[str, Any]) -> str:
    return ", ".join(receipt["done"])


def _print_swept(swept: "Swept") -> None:
    if swept.held_s:
        typer.echo(
            f"{swept.due} persons are due, and nobody is erased for {swept.held_s / 3600:.1f} hours"
            " yet: the clock leapt, or was not noted before. Look at it, and say --trust-clock"
        )
        return
    print_table(
        ("gallery", "person", "faces", "receipt"),
        [[r["gallery"], r["person_id"], r["faces"], r["receipt"]] for r in swept.receipts],
    )
