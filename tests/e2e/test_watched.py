"""A real server, watched: workers that answer as one, a log, and a collector of traces."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.cartoon import cartoon_photograph
from tests.drawn import png
from tests.e2e.server import address_of_nobody, serving
from tests.figures import Figures
from tests.promtool import complaints

WORKERS = 2
OFF = {"expression": "off", "attributes": "off"}
TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
PARTY = png(cartoon_photograph([(20, 40, 200), (300, 40, 240)]))
ALONE = png(cartoon_photograph([(200, 100, 240)]))


def figures(address: str) -> Figures:
    """Of a scrape by a connection of its own, which any worker may take."""
    return Figures(scraped(address))


def scraped(address: str) -> str:
    return httpx.get(f"{address}/metrics", timeout=60).text


def lines(log: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]


def processes(folder: Path) -> set[int]:
    """The worker processes that have counted anything."""
    return {int(file.stem.rpartition("_")[2]) for file in folder.glob("counter_*.db")}


def test_workers_answer_for_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both count, any answers for both, at once; a worker that dies takes no counts with it."""
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    with serving(tmp_path / "data", tmp_path / "log", workers=WORKERS, **OFF) as address:
        [folder] = temporary.glob("mien-metrics-*")
        calls = 0
        while calls < 12 or len(who_answered(folder)) < WORKERS:
            answer = httpx.post(f"{address}/identify", files={"image": PARTY}, timeout=60)
            assert answer.is_success
            calls += 1
        for _ in range(6):
            told = figures(address)
            labels = {"route": "/identify", "method": "POST", "status": "200"}
            assert told("mien_requests_total", **labels) == calls
            assert told("mien_stage_seconds_count", stage="embed") == calls
            assert told("mien_faces_per_image_sum") == 2 * calls
            assert told("mien_decisions_total", decision="no_match") == 2 * calls
            assert told("mien_model_info", model="mtcnn") == 1
            assert told.values("mien_gallery_faces", "gallery") == {"default"}
            assert told("mien_queue_depth", model="ecacface-mobile") == 0
            assert not any("pid" in labels for _, labels, _ in told.samples)
        if shutil.which("promtool"):
            assert complaints(scraped(address)) == ""
        workers = processes(folder)
        assert len(workers) == WORKERS
        memory = {resident_bytes(worker) for worker in workers}
        assert told("process_resident_memory_bytes") > 1.5 * max(memory)
        os.kill(min(workers), signal.SIGKILL)
        told = figures_of_others(address, folder, gone=min(workers))
        assert told("mien_requests_total", route="/identify") == calls
        assert not list(folder.glob(f"gauge_live*_{min(workers)}.db"))
    assert not list(temporary.glob("mien-metrics-*"))


def who_answered(folder: Path) -> set[int]:
    """The workers that have looked at a photograph."""
    return {
        int(file.stem.rpartition("_")[2])
        for file in folder.glob("histogram_*.db")
        if b'"stage": "detect"' in file.read_bytes()
    }


def resident_bytes(pid: int) -> int:
    [line] = [
        line
        for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
        if line.startswith("VmRSS")
    ]
    return int(line.split()[1]) * 1024


def figures_of_others(address: str, folder: Path, *, gone: int) -> Figures:
    """A scrape that is answered after the death of a worker by one of the others, or the next."""
    while True:
        try:
            told = figures(address)
        except httpx.TransportError:  # the dead one had the connection
            continue
        if not list(folder.glob(f"gauge_live*_{gone}.db")):
            return told


def test_the_log_is_json_with_a_line_a_request_and_names_nobody(tmp_path: Path) -> None:
    """All that the process writes, from its start to its end, a failure of the disk included."""
    log = tmp_path / "log"
    with serving(tmp_path / "data", log, prot=1, **OFF) as address:
        with httpx.Client(base_url=address, timeout=60) as client:
            fields = {
                "person_id": "telltale-id",
                "name": "Telltale",
                "metadata": '{"tell": "tale"}',
            }
            enrolled = client.post("/enroll", files={"image": ALONE}, data=fields)
            assert enrolled.status_code == 201
            assert client.post("/identify", files={"image": ALONE}).is_success
            assert client.get("/galleries/default/persons/telltale-id").is_success
            assert client.post("/enroll", files={"image": PARTY}, data=fields).is_error
        refused = subprocess.run(
            [sys.executable, "-c", _BROKEN, address.rpartition(":")[2]],
            capture_output=True,
            text=True,
            check=True,
        )
        assert refused.stdout.startswith("HTTP/1.1 400")
    told = lines(log)
    assert all({"time", "level", "event"} <= set(line) for line in told)
    events = [line["event"] for line in told]
    assert events[0] == "no setting of Mien"
    assert "ready" in events
    assert any(event.startswith("Uvicorn running") for event in events)
    assert any("Invalid HTTP" in event for event in events)
    enrol, identify, person, refusal = [
        line for line in told if line["event"] == "request" and line["route"] != "/readyz"
    ]
    assert enrol["status"] == 201
    assert list(enrol["stages"]) == ["decode", "detect", "align", "embed", "search", "store"]
    assert (identify["route"], identify["decisions"]) == ("/identify", {"match": 1})
    assert person["route"] == "/galleries/{gallery}/persons/{person_id}"
    assert (refusal["problem"], refusal["faces"]) == ("several-faces", 2)
    text = log.read_text(encoding="utf-8").lower()
    assert "telltale" not in text
    assert "tale" not in text


_BROKEN = """
import socket, sys
with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as connection:
    connection.sendall(b"telltale nonsense\\r\\n\\r\\n")
    print(connection.recv(1000).decode())
"""


class Collector(ThreadingHTTPServer):
    """Takes spans by OTLP over HTTP, as a collector does; `spans` has them as they come."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Taker)
        self.spans: SimpleQueue[tuple[str, Span]] = SimpleQueue()
        self.address = f"http://127.0.0.1:{self.server_address[1]}"

    def take(self, count: int) -> list[tuple[str, Span]]:
        """The next spans, each with the name of its service."""
        return [self.spans.get(timeout=60) for _ in range(count)]


class _Taker(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        assert self.path == "/v1/traces"
        body = self.rfile.read(int(self.headers["Content-Length"]))
        for of_resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            names = {a.key: a.value.string_value for a in of_resource.resource.attributes}
            for of_scope in of_resource.scope_spans:
                for span in of_scope.spans:
                    self.server.spans.put((names["service.name"], span))  # type: ignore[attr-defined]
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def collecting() -> Iterator[Collector]:
    with Collector() as collector:
        serving_it = threading.Thread(target=collector.serve_forever)
        serving_it.start()
        try:
            yield collector
        finally:
            collector.shutdown()
            serving_it.join()


def test_a_collector_gets_a_span_a_request_and_one_a_stage(tmp_path: Path) -> None:
    with collecting() as collector:
        given = {"otlp_endpoint": collector.address, **OFF}
        with serving(tmp_path / "data", tmp_path / "log", **given) as address:
            unrecorded = {"traceparent": f"00-{TRACE}-{PARENT}-00"}
            assert httpx.get(f"{address}/healthz", headers=unrecorded, timeout=60).is_success
            answer = httpx.post(
                f"{address}/identify",
                files={"image": PARTY},
                headers={"traceparent": f"00-{TRACE}-{PARENT}-01", "tracestate": "rojo=1"},
                timeout=60,
            )
            own = httpx.get(f"{address}/models", timeout=60)
        spans = []
        while not collector.spans.empty():  # the server sent all before it ended
            service, span = collector.spans.get()
            assert service == "mien"
            spans.append(span)
    named = {span.name: span for span in spans if not span.name.endswith("/readyz")}
    request = named.pop("POST /identify")
    trace_id, span_id = answer.headers["traceparent"].split("-")[1:3]
    assert (request.trace_id.hex(), request.span_id.hex()) == (TRACE, span_id)
    assert (trace_id, request.parent_span_id.hex()) == (TRACE, PARENT)
    assert request.kind == Span.SPAN_KIND_SERVER
    assert request.trace_state == "rojo=1"
    attributes = {a.key: a.value.string_value or a.value.int_value for a in request.attributes}
    assert attributes == {
        "http.request.method": "POST",
        "http.route": "/identify",
        "http.response.status_code": 200,
        "mien.request_id": answer.headers["x-request-id"],
        "mien.images": 1,
        "mien.faces": 2,
    }
    begun = named.pop("GET /models")
    assert begun.trace_id.hex() == own.headers["traceparent"].split("-")[1]
    assert not begun.parent_span_id
    timings = answer.json()["timings_ms"]
    assert set(named) == set(timings) - {"total"}  # and no /healthz, which its caller left out
    for stage, span in named.items():
        assert (span.trace_id, span.parent_span_id) == (request.trace_id, request.span_id)
        took_ms = (span.end_time_unix_nano - span.start_time_unix_nano) / 1e6
        assert took_ms == pytest.approx(timings[stage], abs=0.01)
        assert span.start_time_unix_nano >= request.start_time_unix_nano
        assert span.end_time_unix_nano <= request.end_time_unix_nano


def test_a_collector_that_is_not_there_holds_up_no_request_and_no_stop(tmp_path: Path) -> None:
    """`serving` waits for the end; a stop that waited for every try would take half a minute."""
    log = tmp_path / "log"
    with (
        address_of_nobody() as nobody,
        serving(tmp_path / "data", log, otlp_endpoint=nobody, **OFF) as address,
    ):
        for _ in range(20):
            assert httpx.get(f"{address}/models", timeout=60).is_success
    told = lines(log)
    assert sum(line.get("route") == "/models" for line in told) == 20
    assert any("export" in line["event"] for line in told)
