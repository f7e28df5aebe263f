"""What several folders of tests stand on: a service of stand-in networks that reads drawn faces.

The store, the index, the sessions and the application are the real ones (tests/standin.py and
tests/drawn.py say what is not), so that what is asked of them does not hang on what a trained
network makes of a face.
"""

import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path

# Before anything starts threads, and for every process that a test starts: on a busy machine the
# threads of a small product wait for each other far longer than they compute.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import hypothesis
import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from service.app import Opened, create_app, open_everything
from service.settings import SHIPPED_MODELS, Settings
from tests.drawn import find_drawn
from tests.standin import NAME, write_attributes, write_expression, write_recognition

# A busy machine is slow, and no example is wrong for it.
hypothesis.settings.register_profile(
    "unhurried", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("unhurried")

# Its assertions explain themselves, as those of test modules do.
pytest.register_assert_rewrite("tests.service.gallery_contract")


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of models: the detector that ships and the stand-ins."""
    folder = tmp_path_factory.mktemp("models")
    write_recognition(folder / NAME)
    write_expression(folder / "patt-lite")
    write_attributes(folder / "mzts")
    (folder / "mtcnn").symlink_to(SHIPPED_MODELS / "mtcnn")
    return folder


@pytest.fixture
def settings(models: Path, tmp_path: Path) -> Settings:
    """Settings for a service of stand-ins with a store of its own, where crops meet in batches."""
    return Settings(models=models, recognition=NAME, data=tmp_path / "data", batch=4)


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
    with ready_client(app) as client:
        yield client


def ready_client(app: FastAPI) -> TestClient:
    """A client, to be entered, that comes when the application is warm."""
    return _Ready(app)


class _Ready(TestClient):
    def __enter__(self) -> "TestClient":
        client = super().__enter__()
        while client.get("/readyz").status_code != 200:  # the test's own timeout is the limit
            pass
        return client
