"""`mien keys`: the keys of a data folder, which a running server looks at with each request."""

import os
import pwd
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from service.cli.door import Unable, local_settings, reported, shown
from service.cli.plain import plain_errors
from service.cli.tables import print_json, print_table
from service.guard.audit import FILE as AUDIT
from service.guard.audit import Audit
from service.guard.keys import FILE as KEYS
from service.guard.keys import SCOPES, Key, KeyRing, Keys
from service.settings import read_settings

app = typer.Typer(
    help="The keys that callers show, see docs/keys.md.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
_UNITS_S: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_DURATION: Final = re.compile(r"([0-9]{1,10})([smhd])")
_LONGEST_D: Final = 36_500

Data = Annotated[Path | None, typer.Option(help="The data folder; else MIEN_DATA.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command()
def create(
    name: str,
    scope: Annotated[
        list[str], typer.Option(help=f"What it allows, repeatable: {', '.join(SCOPES)}.")
    ],
    gallery: Annotated[
        list[str] | None, typer.Option(help="The only galleries it is for, repeatable; else all.")
    ] = None,
    rate: Annotated[
        str | None, typer.Option(help="How often it may ask, as 10/second or 300/minute.")
    ] = None,
    quota: Annotated[
        str | None, typer.Option(help="How much it may ask for in all, as 10000/day.")
    ] = None,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Make a key and print its secret, this once: it is kept as a hash alone."""
    with plain_errors(), _ring(data) as ring:
        secret = ring.create(name, scope, galleries=gallery or None, rate=rate, quota=quota)
    _show(name, secret, folder_of(data), as_json)


@app.command("list")
def list_keys(data: Data = None, as_json: AsJson = False) -> None:
    """The keys with what they allow, revoked ones too; no secret can be had from them."""
    with plain_errors():
        settings = local_settings(data)
        with reported(settings):
            keys = Keys(settings.data / KEYS).all()
    if as_json:
        print_json([_facts(key) for key in keys])
        return
    columns = ("name", "scopes", "galleries", "rate", "quota", "created", "state")
    print_table(
        columns, [[_cell(column, _facts(key)[column]) for column in columns] for key in keys]
    )


@app.command()
def rotate(
    name: str,
    overlap: Annotated[
        str, typer.Option(help="How long its secret of before holds too, as 30m, 1h or 7d.")
    ] = "0s",
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Give a key a new secret, and print it this once."""
    with plain_errors(), _ring(data) as ring:
        secret = ring.rotate(name, seconds_of(overlap))
    _show(name, secret, folder_of(data), as_json)


@app.command()
def revoke(name: str, data: Data = None) -> None:
    """End a key, in every process of a running server, with its next request."""
    with plain_errors(), _ring(data) as ring:
        ring.revoke(name)
    typer.echo(f"{name} is revoked in {shown(folder_of(data).absolute())}", err=True)


def seconds_of(text: str) -> float:
    """A duration as 90s, 30m, 1h or 7d, in seconds. Raises Unable."""
    found = _DURATION.fullmatch(text)
    if found is None or (seconds := int(found[1]) * _UNITS_S[found[2]]) > _LONGEST_D * 86_400:
        raise Unable(
            f"a duration is as 90s, 30m, 1h or 7d, {_LONGEST_D}d at most, not {text[:50]!r}"
        )
    return float(seconds)


def folder_of(data: Path | None) -> Path:
    """The data folder that is meant."""
    return read_settings(**({} if data is None else {"data": data})).data


@contextmanager
def _ring(data: Path | None) -> Iterator[KeyRing]:
    """The keys, to be changed by who is at the machine. What they refuse becomes Unable."""
    folder = folder_of(data)
    try:
        yield KeyRing(folder / KEYS, Audit(folder / AUDIT), f"cli:{user_name()}")
    except ValueError as error:
        raise Unable(str(error)) from error


def user_name() -> str:
    """The system's name of who runs the command; the number where there is none."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def _show(name: str, secret: str, folder: Path, as_json: bool) -> None:
    where = shown(folder.absolute())
    typer.echo(f"the key of {name} in {where}; it cannot be shown again:", err=True)
    if as_json:
        print_json({"name": name, "key": secret})
    else:
        typer.echo(secret)


def _facts(key: Key) -> dict[str, Any]:
    """What is told of a key, its secrets by the first digits of their hashes."""
    return {
        "name": key.name,
        "scopes": list(key.scopes),
        "galleries": None if key.galleries is None else list(key.galleries),
        "rate": key.rate,
        "quota": key.quota,
        "created": key.created[:19] + "Z",
        "state": _state(key),
        "secrets": [{"sha256": s.sha256[:8], "until": s.until} for s in key.secrets],
    }


def _state(key: Key) -> str:
    if key.revoked is not None:
        return f"revoked {key.revoked[:19]}Z"
    ending = [secret.until for secret in key.secrets if secret.until is not None]
    return f"holds, rotated until {max(ending)[:19]}Z" if ending else "holds"


def _cell(column: str, value: Any) -> str:
    if value is None:
        return "all" if column == "galleries" else "none"
    return " ".join(value) if isinstance(value, list) else str(value)
