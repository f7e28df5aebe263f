"""service/api/house.py, docs.py and the start: what the service says of itself, and when."""

import dataclasses
import logging
import re
import threading
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from service import app as app_module
from service.app import Opened, create_app
from service.errors import ArtefactError, StorageUnavailable
from service.observe.workers import Workers, write_workers
from service.settings import Settings
from tests.api.wire import problem, slug
from tests.conftest import open_drawn, ready_client
from tests.drawn import drawn_photo
from tests.standin import recognition_graph, write_recognition


def test_it_is_alive_and_ready_once_it_is_warm(settings: Settings) -> None:
    """Until the warm-up is through, /readyz and the calls refuse with the reason."""
    may_warm = threading.Event()

    def open_slowly(settings: Settings) -> Opened:
        opened = open_drawn(settings)

        def warm_up() -> None:
            assert may_warm.wait(60)
            opened.warm_up()

        return dataclasses.replace(opened, warm_up=warm_up)

    app = create_app(settings, open_engine=open_slowly)
    with TestClient(app) as client:
        assert client.get("/healthz").json() == {"status": "ok"}
        for refused in (
            client.get("/readyz"),
            client.post("/detect", files={"image": drawn_photo(1)}),
            client.get("/galleries"),
        ):
            assert refused.status_code == 503
            assert problem(refused)["reasons"] == ["the models are not warm yet"]
            assert int(refused.headers["retry-after"]) >= 1
        may_warm.set()
        while client.get("/readyz").status_code != 200:
            pass
        assert client.post("/detect", files={"image": drawn_photo(1)}).status_code == 200


def test_it_is_ready_with_a_word_about_workers_that_cannot_start(
    settings: Settings, tmp_path: Path
) -> None:
    with ready_client(create_app(settings, open_engine=open_drawn)) as client:
        assert client.get("/readyz").json() == {"status": "ready"}
        service = client.app.state.service  # type: ignore[attr-defined]
        told = Workers(wanted=2, ready=1, degraded=("worker 2 of 2 is not running",))
        write_workers(tmp_path, told)
        service.exposition = dataclasses.replace(service.exposition, folder=tmp_path)
        ready = client.get("/readyz")
        assert (ready.status_code, ready.json()["degraded"]) == (200, list(told.degraded))


def test_a_store_that_cannot_be_used_makes_it_unready_with_the_reason(
    settings: Settings,
) -> None:
    class Broken:
        def __init__(self, store: Any) -> None:
            self._store = store

        def check(self) -> list[str]:
            return ["the disk is gone"]

        def __getattr__(self, name: str) -> Any:
            return getattr(self._store, name)

    with ready_client(create_app(settings, open_engine=open_drawn)) as client:
        service = client.app.state.service  # type: ignore[attr-defined]
        broken = Broken(service.engine.galleries)
        service.engine = dataclasses.replace(service.engine, galleries=broken)
        assert problem(client.get("/readyz"))["reasons"] == ["the disk is gone"]
        assert client.get("/healthz").status_code == 200


def test_a_warm_up_that_fails_is_told_and_tried_again(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app_module, "_RETRY_S", 0.01)
    tries = []

    def open_poorly(settings: Settings) -> Opened:
        opened = open_drawn(settings)

        def warm_up() -> None:
            tries.append(1)
            if len(tries) < 3:
                raise StorageUnavailable("locked")

        return dataclasses.replace(opened, warm_up=warm_up)

    with ready_client(create_app(settings, open_engine=open_poorly)) as client:
        assert len(tries) == 3
        assert client.get("/galleries").status_code == 200


def test_a_warm_up_that_ends_in_a_fault_is_in_the_log(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    """It is not tried again: nobody knows what is wrong, and /readyz must not stay without a word
    of it."""
    told = threading.Event()

    class Told(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            told.set()

    def open_badly(settings: Settings) -> Opened:
        def warm_up() -> None:
            raise RuntimeError("out of memory")

        return dataclasses.replace(open_drawn(settings), warm_up=warm_up)

    watcher = Told(logging.ERROR)
    logging.getLogger("mien").addHandler(watcher)
    try:
        with TestClient(create_app(settings, open_engine=open_badly)) as client:
            assert told.wait(60)
            assert client.get("/readyz").status_code == 503
    finally:
        logging.getLogger("mien").removeHandler(watcher)
    [line] = [line for line in caplog.records if line.levelno == logging.ERROR]
    assert line.getMessage() == "a task failed"
    assert line.exc_info is not None


def test_a_worker_that_finds_the_store_locked_waits_instead_of_ending_the_service(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To begin it anew would take longer, and be told as a failure."""
    open_store, tries = app_module.open_store, []

    def locked_twice(settings: Settings) -> Any:
        tries.append(settings.workers)
        if len(tries) < 3:
            raise StorageUnavailable("another process keeps it locked")
        return open_store(settings)

    monkeypatch.setattr(app_module, "_RETRY_S", 0.01)
    monkeypatch.setattr(app_module, "open_store", locked_twice)
    worker = settings.model_copy(update={"workers": 2})
    with ready_client(create_app(worker, open_engine=open_drawn)) as client:
        assert client.get("/galleries").status_code == 200
    assert tries == [2, 2, 2]
    tries.clear()
    with (
        pytest.raises(StorageUnavailable),  # one that is alone says so at once
        TestClient(create_app(settings, open_engine=open_drawn)),
    ):
        pass


def test_a_model_that_is_not_what_it_says_stops_the_start(
    settings: Settings, tmp_path: Path
) -> None:
    folder = tmp_path / "models"
    graph = write_recognition(folder / "stand-in") / "model.onnx"
    (folder / "mtcnn").symlink_to(settings.models / "mtcnn")
    graph.write_bytes(recognition_graph(width=128))
    app = create_app(settings.model_copy(update={"models": folder}))
    with pytest.raises(ArtefactError, match="sha256"), TestClient(app):
        pass


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"recognition": "mtcnn"}, "where recognition is asked for"),
        ({"detection": "stand-in"}, "where detection is asked for"),
        ({"expression": "mzts"}, "where expression is asked for"),
        ({"attributes": "patt-lite"}, "where attributes is asked for"),
        ({"recognition": "absent"}, "cannot be read"),
        ({"expression": "absent"}, "cannot be read"),
    ],
)
def test_a_model_of_another_task_or_none_stops_the_start(
    settings: Settings, changes: dict[str, str], reason: str
) -> None:
    app = create_app(settings.model_copy(update=changes))
    with pytest.raises(ArtefactError, match=reason), TestClient(app):
        pass


def test_a_calibration_that_cannot_be_used_stops_the_start(
    settings: Settings, tmp_path: Path
) -> None:
    folder = tmp_path / "models"
    write_recognition(folder / "stand-in", calibration={"people": 3})
    (folder / "mtcnn").symlink_to(settings.models / "mtcnn")
    off = {"expression": "off", "attributes": "off"}
    app = create_app(settings.model_copy(update={"models": folder, **off}))
    with pytest.raises(ArtefactError, match="its calibration cannot be used"), TestClient(app):
        pass


def test_the_models_are_named_with_what_they_are_and_run_on(client: TestClient) -> None:
    models = {model["name"]: model for model in client.get("/models").json()["items"]}
    assert list(models) == ["mtcnn", "stand-in", "stand-in-expression", "stand-in-attributes"]
    assert [model["task"] for model in models.values()] == [
        *("detection", "recognition", "expression", "attributes")
    ]
    assert models["stand-in"]["space"] == "stand-in/1"
    assert models["stand-in"]["provider"] == "CPUExecutionProvider"
    assert models["mtcnn"]["manifest"]["licence"].startswith("MIT")
    assert not {"golden", "calibration", "input"} & set(models["stand-in"]["manifest"])
    whole = client.get("/models/stand-in").json()
    assert whole["manifest"]["input"] == {"crops": {"dtype": "uint8", "shape": ["n", 112, 112, 3]}}
    assert {**whole, "manifest": models["stand-in"]["manifest"]} == models["stand-in"]
    assert client.get("/models/stand-in/calibration").json()["people"] == 100
    assert client.get("/models/mtcnn/calibration").json() == {}
    for path in ("/models/none", "/models/none/calibration"):
        assert problem(client.get(path))["known"] == sorted(models)


def test_the_documentation_is_a_page_that_needs_no_other_host(client: TestClient) -> None:
    page = client.get("/docs")
    assert page.headers["content-type"].startswith("text/html")
    assert not re.findall(r"""(?:src|href)=["'](?![#/])""", page.text)
    assert not re.search(r"(?i)https?://|@import|<script|url\(", page.text)
    for path, methods in client.get("/openapi.json").json()["paths"].items():
        assert all(f"<b>{m.upper()}</b> <code>{path}</code>" in page.text for m in methods)


def test_the_house_s_own_paths_are_problems_too(client: TestClient) -> None:
    assert slug(client.post("/healthz")) == "method-not-allowed"
    assert slug(client.get("/problems/")) == "path-unknown"
