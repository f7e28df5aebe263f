"""The door to the service that the commands ask: a server's, or one opened in this process.

Which one it is follows from --url, --data and MIEN_URL, in this order; without them it is the data
folder of the settings. A command that works on a data folder reports which one, on stderr.
"""

import asyncio
import re
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, Final

import httpx
import typer

from service.settings import Settings, client_key, client_url, read_settings

_OF_THE_FILE: Final = (None, 410, 413, 422)
_OF_THE_PERSON: Final = (None, "person_id", "name")
_TIMEOUT: Final = httpx.Timeout(120, connect=10)
_PATIENCE_S: Final = 60.0
_BUSY: Final = (429, 503)
_PAUSE_S: Final = 0.05
_NEARBY_S: Final = 1.0  # for a server on this machine to say that it is there
_KEY: Final = re.compile(r"[!-~]+")  # what a header can carry
Place = str | Settings | None


class Refused(Exception):
    """The API's problem; a file that cannot be read has one of the same shape without a status."""

    def __init__(self, problem: dict[str, Any]) -> None:
        super().__init__(f"{problem['title']}: {problem['detail']}")
        self.problem = problem

    @property
    def of_one_file(self) -> bool:
        """Whether it is the file's own problem, and the next file may do better."""
        field = self.problem.get("field")
        return self.problem["status"] in _OF_THE_FILE and field in _OF_THE_PERSON


class Unable(Exception):
    """What stands in the way before the API is asked, or instead of its answer."""


def place_of(url: str | None, data: Path | None) -> str | Settings:
    """The server's address, or the settings for work in this process."""
    if url is not None and data is not None:
        raise Unable("--data is the local folder's and --url a server's: name one of them")
    if url is None and data is None:
        url = client_url()
    return local_settings(data) if url is None else url


def local_settings(data: Path | None) -> Settings:
    """The settings for work on a data folder: the one that is given, else that of MIEN_DATA."""
    return read_settings(workers=1, **({} if data is None else {"data": data}))


def require_data(place: Place, first: str) -> None:
    """Raises Unable where the data folder is to be asked and is not there."""
    if isinstance(place, Settings) and not place.data.exists():
        folder = shown(place.data.absolute())
        raise Unable(f"there is no data folder {folder}: {first} first{_nearby(place)}")


@contextmanager
def reported(settings: Settings, *, takes_url: bool = False) -> Iterator[None]:
    """Report on stderr the data folder that the block works on.

    At the start where stderr is a terminal, so that a wrong one can be stopped. Elsewhere at the
    end of what went well: a failure is a single line, which names the folder itself. takes_url: the
    command could ask a server instead; one that answers is named too.
    """
    nearby = _nearby(settings) if takes_url else ""
    where = f"data folder {shown(settings.data.absolute())}{nearby}"
    watched = sys.stderr.isatty()
    if watched:
        typer.echo(f"mien: {where}", err=True)
    try:
        yield
    except Refused as error:
        raise Unable(f"{error} ({where})") from error
    if not watched:
        typer.echo(f"mien: {where}", err=True)


def _nearby(settings: Settings) -> str:
    """A clause on the server that answers where `mien serve` listens by these settings; empty if
    none does."""
    if settings.port == 0:
        return ""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)
    address = f"http://{f'[{host}]' if ':' in host else host}:{settings.port}"
    try:
        response = httpx.get(f"{address}/healthz", timeout=_NEARBY_S, trust_env=False)
        if response.json() == {"status": "ok"}:
            return f"; a service answers on {address}: --url {address} asks it instead"
    except (httpx.HTTPError, httpx.InvalidURL, ValueError):
        pass  # nobody listens, or a stranger
    return ""


@asynccontextmanager
async def open_service(place: Place, *, report: bool = True) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the server at an address, or of the application in this process, warm.

    Without a place the application has an empty store, which is gone afterwards: for questions that
    ask no gallery. report: report the data folder of the settings.
    """
    if isinstance(place, str):
        try:
            headers = _key_header()
            async with httpx.AsyncClient(
                base_url=place, timeout=_TIMEOUT, headers=headers
            ) as client:
                yield client
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            reason = str(error) or type(error).__name__
            raise Unable(f"{place} gives no answer: {reason}") from error
        return
    from service.app import create_app

    with (
        reported(place, takes_url=True) if place is not None and report else nullcontext(),
        tempfile.TemporaryDirectory(prefix="mien-") as folder,
    ):
        settings = place or read_settings(workers=1, data=folder)
        here = create_app(settings.unguarded())
        transport = httpx.ASGITransport(here)
        async with (
            here.router.lifespan_context(here),
            httpx.AsyncClient(transport=transport, base_url="http://here", timeout=None) as client,
        ):
            await _until_ready(client)
            yield client


def _key_header() -> dict[str, str]:
    """What shows the server the key of MIEN_KEY; nothing without one. Raises Unable, and does not
    repeat the key."""
    key = client_key()
    if key is None:
        return {}
    if _KEY.fullmatch(key) is None:
        raise Unable("MIEN_KEY is no key: a key has letters, digits and signs of ASCII, no blanks")
    return {"Authorization": f"Bearer {key}"}


async def _until_ready(client: httpx.AsyncClient) -> None:
    """Waits for the models; raises the problem of a service that does not come."""
    until = time.monotonic() + _PATIENCE_S
    while (response := await client.get("/readyz")).is_error and time.monotonic() < until:
        await asyncio.sleep(_PAUSE_S)
    answer_of(response)


async def post(
    client: httpx.AsyncClient,
    path: str,
    fields: dict[str, Any],
    images: Sequence[tuple[str, bytes]],
    headers: dict[str, str] | None = None,
) -> httpx.Response:
    """The response; while the service is busy, or the key's rate is reached, the call is made
    again."""
    given = {name: str(value) for name, value in fields.items() if value is not None}
    until = time.monotonic() + _PATIENCE_S
    while True:
        response = await client.post(path, data=given, files=list(images), headers=headers)
        after = response.headers.get("Retry-After", "")
        wait_s = float(after) if after.isdecimal() else 1.0  # a proxy may write a date
        if response.status_code not in _BUSY or time.monotonic() + wait_s > until:
            return response
        await asyncio.sleep(wait_s)


def answer_of(response: httpx.Response) -> Any:
    """What the response says. Raises Refused with its problem; Unable where it is not Mien's."""
    try:
        body = response.json()
    except ValueError:
        body = None
    if not isinstance(body, dict) or (response.is_error and "title" not in body):
        raise Unable(f"{response.url} answers {response.status_code}, and not as Mien does")
    if response.is_error:
        raise Refused(body)
    return body


def bytes_of(path: Path) -> bytes:
    """The file's bytes. Raises Refused."""
    try:
        return path.read_bytes()
    except OSError as error:
        detail = error.strerror or str(error)
        problem = {"title": "File cannot be read", "status": None, "detail": detail}
        raise Refused(problem) from error


def shown(path: Path) -> str:
    """The path as text that can be printed and sent, whatever its bytes."""
    return str(path).encode("utf-8", "replace").decode()
