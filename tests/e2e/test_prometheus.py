"""A real Prometheus scrapes a real server under traffic, and every query finds what it asks for."""

import re
import secrets
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import cv2
import httpx
import numpy as np
import pynvml
import pytest
from numpy.typing import NDArray

from benchmarks.prometheus import (
    DASHBOARDS,
    Prometheus,
    Query,
    asked,
    has_data,
    is_installed,
    watching,
)
from service.observe.exposition import Exposition, House
from service.observe.gpu import open_gpus
from tests.cartoon import cartoon_photograph
from tests.drawn import png
from tests.e2e.server import serving

pytestmark = pytest.mark.skipif(
    not is_installed(), reason="Prometheus is not installed (Debian: prometheus)"
)
WINDOW = "1h"  # all of the traffic, however long ago a busy machine made it
ROUNDS = 3
OF_THE_GPU = {"GPU in use", "GPU memory"}  # proved below, with a stand-in for the driver
# What alerts ask for and a sound service does not have: its disk was never full.
ABSENT = {'mien_refused_total{job="mien",reason=~"storage-.+|erasure-incomplete"}'}

KNOWN = cartoon_photograph([(200, 100, 240)])
NOBODY = png(np.full((99, 99, 3), 128, np.uint8))
PARTY = png(cartoon_photograph([(20, 40, 200), (300, 40, 240)]))


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """One that has scraped a server before, during and after its traffic, with a key."""
    folder = tmp_path_factory.mktemp("watched")
    key_file = folder / "key"
    key_file.write_text(secrets.token_urlsafe(32))
    given = {"keys": "required", "key_file": key_file, "queue": 1}
    with serving(folder / "data", folder / "log", **given) as address:
        (folder / "prometheus").mkdir()
        target = address.removeprefix("http://")
        with watching(folder / "prometheus", [target], key_file=key_file) as prometheus:
            headers = {"Authorization": f"Bearer {key_file.read_text()}"}
            with httpx.Client(base_url=address, headers=headers, timeout=120) as client:
                prometheus.wait_for_scrapes(1)
                fpir = None
                for _ in range(ROUNDS):
                    fpir = make_traffic(client, fpir)
                    prometheus.wait_for_scrapes(2)
                yield prometheus


def make_traffic(client: httpx.Client, fpir: float | None) -> float:
    """Calls of every kind, answered and refused, with decisions of every kind.

    fpir: a target at which the noisy face is an uncertain one, found and returned if not given.
    """
    known = png(KNOWN)
    enrolled = client.post("/enroll", files={"image": known}, data={"person_id": "ada"})
    assert enrolled.status_code == 201
    assert client.post("/verify", files={"image_a": known, "image_b": known}).is_success
    features = {"features": "expression,attributes,quality"}
    assert client.post("/analyze", files={"image": PARTY}, data=features).is_success
    assert client.post("/detect", files={"image": NOBODY}).is_success
    assert decision(client, KNOWN) == "match"
    assert decision(client, KNOWN[:, ::-1], threshold=1) == "no_match"
    targets = [10 ** (-k / 4) for k in range(4, 41)] if fpir is None else [fpir]
    uncertain = [t for t in targets if decision(client, noisy(KNOWN), target_fpir=t) == "uncertain"]
    assert client.post("/enroll", files={"image": PARTY}).status_code == 422
    with ThreadPoolExecutor(4) as pool:  # the house has one place
        answers = list(pool.map(lambda _: client.post("/detect", files={"image": PARTY}), range(8)))
    assert {answer.status_code for answer in answers} == {200, 503}
    return uncertain[0]


def decision(client: httpx.Client, photograph: NDArray[np.uint8], **asked: float) -> str:
    """What /identify makes of the only face."""
    answer = client.post("/identify", files={"image": png(photograph)}, data=asked)
    [face] = answer.json()["images"][0]["faces"]
    return str(face["decision"])


def noisy(photograph: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Less like itself than it was, and a face still."""
    noise = np.random.default_rng(1).normal(0, 60, photograph.shape)
    return cv2.convertScaleAbs(np.clip(photograph + noise, 0, 255))


@pytest.mark.parametrize("board", sorted(DASHBOARDS.glob("*.json")), ids=lambda path: path.stem)
def test_every_query_of_a_dashboard_returns_data(prometheus: Prometheus, board: Path) -> None:
    queries = [query for query in asked(board) if query.panel not in OF_THE_GPU]
    assert queries
    assert not without_data(prometheus, queries)


def without_data(prometheus: Prometheus, queries: list[Query]) -> list[Query]:
    return [query for query in queries if not has_data(prometheus.now(query.at(WINDOW)))]


def test_every_rule_is_evaluated_and_every_recorded_one_has_data(prometheus: Prometheus) -> None:
    rules = prometheus.rules()
    assert {rule["type"] for rule in rules} == {"recording", "alerting"}
    assert not [rule for rule in rules if rule["health"] != "ok" or rule.get("lastError")]
    recorded = {rule["name"] for rule in rules if rule["type"] == "recording"}
    assert recorded == {name for name in recorded if has_data(prometheus.now(name))}


def test_every_series_that_an_alert_asks_for_is_there(prometheus: Prometheus) -> None:
    """An alert that fires in no sound service says nothing by its silence; what it reads does."""
    selectors = {
        selector
        for rule in prometheus.rules()
        if rule["type"] == "alerting"
        for selector in SELECTOR.findall(rule["query"])
    }
    absent = {selector for selector in selectors if not prometheus.now(selector)}
    assert len(selectors) > len(ABSENT)
    assert absent == ABSENT


SELECTOR = re.compile(r"(?:job:mien_|mien_|process_|\bup(?=\{))[\w:]*(?:\{[^}]*\})?")


@contextmanager
def exposing(exposition: Exposition) -> Iterator[str]:
    """Where a /metrics answers that is written by the service's own code, and nothing else does."""

    class Metrics(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            text, kind = exposition.text(self.headers.get("Accept", ""), House([]))
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Metrics) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


def test_the_panels_of_the_gpu_show_what_the_driver_tells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = {
        "nvmlInit": lambda: None,
        "nvmlDeviceGetCount": lambda: 1,
        "nvmlDeviceGetHandleByIndex": lambda index: index,
        "nvmlDeviceGetMemoryInfo": lambda _: SimpleNamespace(used=2**30, total=2**33),
        "nvmlDeviceGetUtilizationRates": lambda _: SimpleNamespace(gpu=40),
    }
    for name, answer in told.items():
        monkeypatch.setattr(pynvml, name, answer)
    exposition = Exposition({"version": "1"}, folder=None, gpus=open_gpus())
    queries = [query for query in asked(DASHBOARDS / "machine.json") if query.panel in OF_THE_GPU]
    assert {query.panel for query in queries} == OF_THE_GPU
    with exposing(exposition) as target, watching(tmp_path, [target]) as prometheus:
        prometheus.wait_for_scrapes(1)
        assert not without_data(prometheus, queries)
        [use] = prometheus.now('mien_gpu_use_ratio{job="mien"}')
        assert float(use["value"][1]) == 0.4
