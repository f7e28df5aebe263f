"""`mien audit`: read the audit log of a data folder, and check that it is as it was written."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer

from service.cli.door import Unable, local_settings, reported, shown
from service.cli.keys import AsJson, Data, seconds_of
from service.cli.plain import complain, plain_errors
from service.cli.tables import print_json
from service.guard.audit import FILE, Entry, Verdict, files_of, read_entries, verify

app = typer.Typer(
    help="The log of what was done, see docs/keys.md.", no_args_is_help=True, rich_markup_mode=None
)


@app.command("verify")
def verify_log(
    head: Annotated[
        str | None, typer.Option(help="SEQUENCE:HASH of before, which the log must still have.")
    ] = None,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Check every line against the one before. Exit status 1: the log does not hold, and where."""
    with plain_errors(), _log(data) as path:
        verdict = _judged(path, head)
    if as_json:
        print_json(asdict(verdict))
    elif verdict.flaw is None:
        follow = f" and follow {verdict.follows}, which lies elsewhere" if verdict.follows else ""
        typer.echo(f"{verdict.entries} entries hold{follow}; the head is {verdict.head}")
    else:
        flaw = verdict.flaw
        complain(f"{path.with_name(flaw.file)}, line {flaw.line}: {flaw.reason}")
    raise typer.Exit(0 if verdict.flaw is None else 1)


@app.command()
def head(data: Data = None) -> None:
    """Print SEQUENCE:HASH of the last entry: kept elsewhere, it tells when an end is cut off."""
    with plain_errors(), _log(data) as path:
        verdict = _judged(path, None)
        if verdict.flaw is not None:
            raise Unable(f"the log does not hold, see mien audit verify: {verdict.flaw.reason}")
    typer.echo(verdict.head)


@app.command()
def show(
    since: Annotated[
        str | None,
        typer.Option(help="A time, as 2026-11-22 or 2026-11-22T14:00Z; or how long ago, as 24h."),
    ] = None,
    actor: Annotated[str | None, typer.Option(help="Of this key, or other actor.")] = None,
    action: Annotated[str | None, typer.Option(help="As identify or person.erase.")] = None,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Print the entries, a line each; with --json as they stand in the log."""
    with plain_errors(), _log(data) as path:
        begin = None if since is None else _time(since)
        for entry in _entries(path):
            if actor not in (None, entry.actor) or action not in (None, entry.action):
                continue
            if begin is None or datetime.fromisoformat(entry.time) >= begin:
                typer.echo(_line(entry, as_json))


@contextmanager
def _log(data: Path | None) -> Iterator[Path]:
    """The audit log's path, its data folder reported. Raises Unable if nothing was recorded."""
    settings = local_settings(data)
    path = settings.data.absolute() / FILE
    if not files_of(path):
        raise Unable(f"there is no {shown(path)}: nothing was recorded")
    with reported(settings):
        yield path


def _judged(path: Path, head: str | None) -> Verdict:
    try:
        return verify(path, head)
    except ValueError as error:
        raise Unable(str(error)) from error


def _entries(path: Path) -> Iterator[Entry]:
    try:
        yield from read_entries(path)
    except ValueError as error:
        raise Unable(f"{path.parent}, {error}; see mien audit verify") from error


def _time(text: str) -> datetime:
    """The time that is meant; without a zone it is UTC. Raises Unable."""
    if text[-1:] in "smhd" and text[:-1].isdecimal():
        return datetime.now(UTC) - timedelta(seconds=seconds_of(text))
    try:
        told = datetime.fromisoformat(text.upper())  # RFC 3339 has t and z, too
    except ValueError as error:
        raise Unable(f"{text[:50]!r} is no time: as 2026-11-22, 2026-11-22T14:00Z, 24h") from error
    return told if told.tzinfo else told.replace(tzinfo=UTC)


def _line(entry: Entry, as_json: bool) -> str:
    if as_json:
        return json.dumps(asdict(entry), separators=(",", ":"))
    what = json.dumps(entry.what, separators=(", ", ": "))
    return f"{entry.sequence} {entry.time} {entry.actor} {entry.action} {what}"
