"""The whole application on a real store, a real index and real sessions, with stand-in networks.

Faces are drawn (tests/drawn.py), so that what is asked of the wire does not hang on what a trained
network makes of a face.
"""

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from service.app import Opened, create_app, open_everything
from service.settings import SHIPPED_MODELS, Settings
from tests.drawn import find_drawn
from tests.standin import NAME, write_recognition


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of models: the detector that ships and the stand-in."""
    folder = tmp_path_factory.mktemp("models")
    write_recognition(folder / NAME)
    (folder / "mtcnn").symlink_to(SHIPPED_MODELS / "mtcnn")
    return folder


@pytest.fixture
def settings(models: Path, tmp_path: Path) -> Settings:
    """Settings for a service of stand-ins with a store of its own."""
    return Settings(models=models, recognition=NAME, data=tmp_path / "data", threads=1)


def open_drawn(settings: Settings) -> Opened:
    """Everything as it is opened to serve, but faces are the drawn ones."""
    opened = open_everything(settings)
    return dataclasses.replace(opened, engine=dataclasses.replace(opened.engine, detect=find_drawn))


@pytest.fixture
def app(settings: Settings) -> FastAPI:
    """The application, not started."""
    return create_app(settings, open_engine=open_drawn)


@pytest.fixture
def client(app: FastAPI) -> Iterator[TestClient]:
    """A client of the application, which is warm."""
    with TestClient(app, raise_server_exceptions=True) as client:
        wait_until_ready(client.get)
        yield client


def wait_until_ready(get: Callable[..., object]) -> None:
    """Returns when /readyz says yes; the test's own timeout is the limit."""
    while get("/readyz").status_code != 200:  # type: ignore[attr-defined]
        pass
