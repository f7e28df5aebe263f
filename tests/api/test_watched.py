"""What is told of calls: figures, lines and headers, all of one record, and of nobody by name."""

import asyncio
import base64
import json
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from service.errors import StorageUnavailable
from service.observe.exposition import LARGEST_GALLERIES
from service.observe.logs import configure
from service.settings import Settings
from tests.api.wire import send, slug
from tests.conftest import ready_client
from tests.drawn import drawn_photo
from tests.figures import Figures
from tests.logged import restored_logging
from tests.promtool import complaints, needs_promtool

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
ADA = drawn_photo(1)


class Log:
    """The lines that were written since it was last asked."""

    def __init__(self, capfd: pytest.CaptureFixture[str]) -> None:
        self._capfd = capfd
        self.text = ""

    def lines(self) -> list[dict[str, Any]]:
        output = self._capfd.readouterr()
        assert output.out == ""
        self.text += output.err
        return [json.loads(line) for line in output.err.splitlines()]


@pytest.fixture
def log(capfd: pytest.CaptureFixture[str]) -> Iterator[Log]:
    with restored_logging():
        configure("json")
        yield Log(capfd)


@pytest.fixture
def client(log: Log, app: FastAPI) -> Iterator[TestClient]:
    """A client of a service that logs."""
    with ready_client(app) as client:
        log.lines()
        yield client


def figures(client: TestClient) -> Figures:
    answer = client.get("/metrics")
    assert answer.status_code == 200
    return Figures(answer.text)


def test_timings_histograms_and_the_log_are_of_one_record(client: TestClient, log: Log) -> None:
    client.post("/enroll", files={"image": ADA}, data={"person_id": "ada"})
    before = figures(client)
    log.lines()
    answer = send(client, "/identify", "multipart", [ADA, drawn_photo(2, 3)])
    [line] = log.lines()
    after = figures(client)
    timings = answer.json()["timings_ms"]
    assert line["stages"] == {k: v for k, v in timings.items() if k != "total"}
    assert list(line["stages"]) == ["decode", "detect", "align", "embed", "search", "decide"]
    for stage, spent_ms in line["stages"].items():
        labels, counts = {"stage": stage}, 1 if stage in ("search", "decide") else 2
        spent_s = grown("mien_stage_seconds_sum", before, after, **labels)
        assert spent_s * 1e3 == pytest.approx(spent_ms, abs=2e-3)
        assert grown("mien_stage_seconds_count", before, after, **labels) == counts
    assert line["ms"] >= timings["total"]
    assert (line["images"], line["faces"]) == (2, 3)
    decisions = [face["decision"] for image in answer.json()["images"] for face in image["faces"]]
    assert line["decisions"] == {kind: decisions.count(kind) for kind in set(decisions)}
    for kind in set(decisions):
        count = grown("mien_decisions_total", before, after, decision=kind)
        assert count == decisions.count(kind)
    assert grown("mien_top1_similarity_count", before, after) == 3
    assert grown("mien_quality_score_count", before, after) == 3
    assert grown("mien_faces_per_image_count", before, after) == 2
    assert grown("mien_batch_size_sum", before, after, model="stand-in") == 3
    assert grown("mien_queue_wait_seconds_count", before, after, model="stand-in") == 2
    assert after("mien_queue_depth", model="stand-in") == 0


def grown(name: str, before: Figures, after: Figures, **labels: str) -> float:
    return after(name, **labels) - before(name, **labels)


def test_every_call_is_one_line_and_one_count_by_the_template_of_its_path(
    client: TestClient, log: Log
) -> None:
    calls = [
        ("GET", "/galleries/default", "/galleries/{gallery}", "GET", 200),
        ("GET", "/galleries/none", "/galleries/{gallery}", "GET", 404),
        ("PUT", "/galleries/default", "/galleries/{gallery}", "PUT", 405),
        ("HEAD", "/healthz", "/healthz", "HEAD", 200),
        ("BREW", "/healthz", "/healthz", "other", 405),
        ("GET", "/openapi.json", "/openapi.json", "GET", 200),
        ("GET", "/no/such/path", "unknown", "GET", 404),
        ("GET", "/galleries/{gallery}/no", "unknown", "GET", 404),
        ("GET", "/other%2Fpath", "unknown", "GET", 404),
        (
            *("GET", "/galleries/default/persons/a%2Fb"),
            *("/galleries/{gallery}/persons/{person_id}", "GET", 404),
        ),
    ]
    for sent, path, route, method, status in calls:
        before = figures(client)
        log.lines()
        answer = client.request(sent, path)
        [line] = log.lines()
        assert answer.status_code == status
        told = {"route": route, "method": method, "status": status}
        assert told.items() <= line.items(), path
        assert line["request_id"] == answer.headers["x-request-id"]
        labels = {**told, "status": str(status)}
        assert grown("mien_requests_total", before, figures(client), **labels) == 1, path


def test_labels_take_none_of_what_callers_make_up(client: TestClient) -> None:
    for i in range(30):
        client.get(f"/made-up-{i}")
        client.get(f"/galleries/made-up-{i}")
        client.request(f"MADEUP{i}", "/healthz")
        client.get("/healthz", headers={"X-Request-ID": f"made-up-{i}"})
    told = figures(client)
    assert not any(
        "made" in value.lower() for _, labels, _ in told.samples for value in labels.values()
    )


@needs_promtool
def test_a_scrape_is_as_prometheus_asks_metrics_to_be(client: TestClient) -> None:
    for path in ("/enroll", "/identify", "/detect"):
        assert send(client, path, "multipart", [ADA]).is_success
    assert send(client, "/detect", "multipart", [b"no image"]).is_error
    scrape = client.get("/metrics").text
    assert "mien_calibration_similarity{" in scrape
    assert complaints(scrape) == ""


def test_there_are_no_more_gallery_labels_than_the_largest(client: TestClient) -> None:
    for i in range(LARGEST_GALLERIES + 3):
        assert client.post("/galleries", json={"name": f"g{i}"}).is_success
    client.post("/enroll", files={"image": ADA}, data={"gallery": "g22"})
    told = figures(client)
    names = told.values("mien_gallery_faces", "gallery")
    assert len(names) == LARGEST_GALLERIES + 1
    assert {"g22", "other"} <= names
    assert told("mien_gallery_faces") == told("mien_gallery_faces", gallery="g22") == 1
    before = told("mien_gallery_revision")
    client.patch("/galleries/g1", json={"metadata": {"a": 1}})
    assert figures(client)("mien_gallery_revision") == before + 1


def test_refusals_are_counted_by_slug_and_told_in_the_line(client: TestClient, log: Log) -> None:
    before = figures(client)
    log.lines()
    refused = {
        "no-face": client.post("/enroll", files={"image": drawn_photo()}),
        "image-unreadable": client.post("/detect", files={"image": b"no image"}),
        "gallery-unknown": client.post("/identify", files={"image": ADA}, data={"gallery": "none"}),
        "path-unknown": client.get("/none"),
    }
    assert [slug(answer) for answer in refused.values()] == list(refused)
    assert [line["problem"] for line in log.lines()] == list(refused)
    after = figures(client)
    for reason in refused:
        assert grown("mien_refused_total", before, after, reason=reason) == 1


def test_images_count_when_the_call_is_refused_for_one(client: TestClient, log: Log) -> None:
    """What was seen and done of it was seen and done."""
    assert slug(client.post("/enroll", files={"image": drawn_photo(1, 2)})) == "several-faces"
    [line] = log.lines()
    assert (line["images"], line["faces"]) == (1, 2)
    assert list(line["stages"]) == ["decode", "detect", "align"]


def test_metrics_are_there_before_the_service_is_ready_and_when_the_store_fails(
    app: FastAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ready_client(app) as client:
        service = app.state.service
        engine, service.engine = service.engine, None
        cold = figures(client)
        assert cold("mien_model_info", model="stand-in", space="stand-in/1", threads="1") == 1
        assert not cold.values("mien_gallery_faces", "gallery")
        service.engine = engine

        def fail(**_: Any) -> None:
            raise StorageUnavailable("it is locked")

        monkeypatch.setattr(engine.galleries, "list_galleries", fail)
        assert not figures(client).values("mien_gallery_faces", "gallery")


def test_a_trace_is_taken_up_and_handed_on(client: TestClient, log: Log) -> None:
    sent = {"traceparent": f"00-{TRACE}-{PARENT}-01", "tracestate": "rojo=1"}
    answer = client.get("/healthz", headers=sent)
    version, trace_id, span_id, flags = answer.headers["traceparent"].split("-")
    assert (version, trace_id, flags) == ("00", TRACE, "01")
    assert span_id != PARENT
    assert answer.headers["tracestate"] == "rojo=1"
    [line] = log.lines()
    assert line["trace_id"] == TRACE


def test_without_a_trace_or_with_a_broken_one_a_new_one_begins(client: TestClient) -> None:
    begun = set()
    for headers in ({}, {"traceparent": f"00-{TRACE}-{'0' * 16}-01", "tracestate": "rojo=1"}):
        answer = client.get("/none", headers=headers)
        begun.add(answer.headers["traceparent"].split("-")[1])
        assert answer.headers["traceparent"].endswith("-02")  # nobody records it
        assert "tracestate" not in answer.headers
    assert len(begun) == 2
    assert TRACE not in begun


TELLTALES = ("Telltale-Ada", "telltale-gallery", "tell/tale-id", "telltale-value", "telltale-key")


def test_nothing_that_is_logged_tells_of_anybody(client: TestClient, log: Log) -> None:
    """Enrolled, looked for, changed, refused, failed and erased: with names in all places."""
    gallery, person = "telltale-gallery", "telltale%2Ftale-id"
    base = f"/galleries/{gallery}"
    fields = {
        "gallery": gallery,
        "person_id": "telltale/tale-id",
        "name": "Telltale-Ada",
        "metadata": '{"telltale-key": "telltale-value"}',
    }
    assert client.post("/galleries", json={"name": gallery}).is_success
    key = {"Idempotency-Key": "telltale-idempotency"}
    for _ in range(2):
        enrolled = client.post("/enroll", files={"image": ADA}, data=fields, headers=key)
        assert enrolled.status_code == 201
    found = client.post("/identify", files={"image": ADA}, data={"gallery": gallery})
    [candidate] = found.json()["images"][0]["faces"][0]["candidates"]
    assert candidate["name"] == "Telltale-Ada"
    embedded = client.post("/embeddings", files={"image": ADA}).json()
    client.get(f"{base}/persons?limit=telltale")
    client.get(f"{base}/persons/{person}")
    client.get(f"{base}/persons/telltale-nobody/faces/telltale-face")
    client.post("/galleries", json={"name": gallery, "telltale": 1})
    client.post("/identify?telltale=1", content=b"telltale", headers={"Content-Type": "telltale"})
    client.post("/enroll", files={"image": ADA}, data={**fields, "person_id": "telltale\n"})
    client.patch(f"{base}/persons/{person}", json={"name": "Telltale-Ada-2"})
    break_search(client, "Telltale-Ada")
    assert client.post("/identify", files={"image": ADA}).status_code == 500
    assert client.delete(f"{base}/persons/{person}").status_code == 200
    lines = log.lines()
    assert len([line for line in lines if line["event"] == "request"]) == 14
    [failure] = [line for line in lines if line["event"] == "request failed"]
    assert "RuntimeError" in failure["exception"]
    assert "break_search" not in failure["event"]
    text = log.text.lower()
    assert "telltale" not in text
    assert "tale-id" not in text
    embedding = embedded["images"][0]["faces"][0]["embedding"]
    assert not any(str(number)[:9] in text for number in embedding[:8])
    assert base64.b64encode(ADA).decode()[:40].lower() not in text


def break_search(client: TestClient, text: str) -> None:
    """Has every search fail with an exception that says the text, out of one that says it too."""

    def search(*_: Any, **__: Any) -> Any:
        try:
            raise KeyError(text)
        except KeyError as error:
            raise RuntimeError(text) from error

    engine = client.app.state.service.engine  # type: ignore[attr-defined]
    engine.galleries.search = search


def test_what_fails_unseen_in_the_event_loop_is_told_without_its_text(
    client: TestClient, log: Log
) -> None:
    def fail(text: str) -> None:
        raise ValueError(text)

    async def fail_unseen() -> None:
        asyncio.get_running_loop().call_soon(fail, "telltale")
        await asyncio.sleep(0)

    assert client.portal is not None
    client.portal.call(fail_unseen)
    [line] = log.lines()
    assert line["event"] == "a task failed"
    assert "ValueError" in line["exception"]
    assert "telltale" not in str(line)


def test_a_collector_without_its_libraries_stops_the_start_by_the_setting(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    from service.app import create_app
    from service.errors import SettingsError

    for name in [*sys.modules]:
        if name.startswith(("opentelemetry", "service.observe.spans")):
            monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    with pytest.raises(SettingsError, match=r"MIEN_OTLP_ENDPOINT: .*mien\[otel\]"):
        create_app(settings.model_copy(update={"otlp_endpoint": "http://127.0.0.1:4318"}))
