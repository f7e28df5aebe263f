"""One worker process and several serve alike."""

import http.client
import shutil
import time
from pathlib import Path

from tests.e2e.server import serving
from tests.standin import NAME

ASKED = 60
# What a held-back answer waits for is the client's delayed acknowledgment, 40 ms; an answer takes
# about 1 ms. The ratio lies between, and that of the quickest of many holds under load too.
SLOWER = 12


def test_two_workers_answer_on_a_kept_connection_as_quickly_as_one(
    tmp_path: Path, models: Path
) -> None:
    folder = tmp_path / "models"
    shutil.copytree(models / NAME, folder / NAME)
    (folder / "mtcnn").symlink_to(models / "mtcnn")
    given = {"models": folder, "recognition": NAME, "expression": "off", "attributes": "off"}
    took_s = []
    for workers in (1, 2):
        data, log = tmp_path / f"data-{workers}", tmp_path / f"log-{workers}"
        with serving(data, log, workers=workers, **given) as address:
            took_s.append(quickest_s(address))
    one, two = took_s
    assert two < SLOWER * one


def quickest_s(address: str) -> float:
    """The least time of an answer on one connection, once the system no longer acknowledges early.

    Linux acknowledges the first segments of a connection at once, so that only the later answers
    would wait.
    """
    connection = http.client.HTTPConnection(address.removeprefix("http://"), timeout=60)
    took_s = []
    for _ in range(ASKED):
        begun = time.perf_counter()
        connection.request("GET", "/models")
        assert connection.getresponse().read()
        took_s.append(time.perf_counter() - begun)
    connection.close()
    return min(took_s[ASKED // 2 :])
