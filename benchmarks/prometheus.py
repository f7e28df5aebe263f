"""A real Prometheus (Debian's package), with this repository's configuration.

`watching` starts it on a folder of its own, on a port that the system chooses, and ends it. What
differs from docker/prometheus: whom it scrapes, the key's file, and the pace, for which the rules'
own intervals are left out. `asked` lists what the dashboards ask it.
"""

import json
import math
import re
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import httpx
import yaml

ROOT: Final = Path(__file__).parents[1]
CONFIGURED: Final = ROOT / "docker" / "prometheus"
DASHBOARDS: Final = ROOT / "docker" / "grafana" / "dashboards"
POLL_S: Final = 0.1
_LISTENING: Final = re.compile(r'msg="Listening on" address=(\S+)')


class Prometheus:
    """One that runs. Results are Prometheus' own: each has `metric` and `value`, or `values`."""

    def __init__(self, client: httpx.Client) -> None:
        self._client = client

    def now(self, query: str) -> list[dict[str, Any]]:
        """The query's series at this moment. Raises RuntimeError with what Prometheus says."""
        result: list[dict[str, Any]] = self._ask("/query", query=query)["result"]
        return result

    def over(self, query: str, begin_s: float, end_s: float, step_s: float) -> list[dict[str, Any]]:
        """The query's series from one moment to another, both since 1970."""
        data = self._ask("/query_range", query=query, start=begin_s, end=end_s, step=step_s)
        result: list[dict[str, Any]] = data["result"]
        return result

    def rules(self) -> list[dict[str, Any]]:
        """Every rule, with its health and its last error."""
        groups = self._ask("/rules")["groups"]
        return [rule for group in groups for rule in group["rules"]]

    def scrapes(self) -> int:
        """How many times every target of the job mien was scraped with success."""
        counts = self.now('min(sum_over_time(up{job="mien"}[1d]))')
        return int(float(counts[0]["value"][1])) if counts else 0

    def wait_for_scrapes(self, more: int) -> None:
        """Waits until there are so many more, and the rules were evaluated after the last."""
        target = self.scrapes() + more
        while self.scrapes() < target:
            time.sleep(POLL_S)
        scraped_s = time.time()
        while not all(_evaluated_s(rule) > scraped_s for rule in self.rules()):
            time.sleep(POLL_S)

    def _ask(self, path: str, **fields: Any) -> Any:
        answer = self._client.get(f"/api/v1{path}", params=fields).json()
        if answer["status"] != "success":
            raise RuntimeError(f"{fields}: {answer['error']}")
        return answer["data"]


@contextmanager
def watching(
    folder: Path, targets: Sequence[str], *, key_file: Path | None = None, every: str = "1s"
) -> Iterator[Prometheus]:
    """A Prometheus that scrapes the job mien at targets (host:port). folder: an empty one."""
    config = _configured(folder, targets, key_file, every)
    command = [
        *("prometheus", f"--config.file={config}", f"--storage.tsdb.path={folder / 'data'}"),
        "--web.listen-address=127.0.0.1:0",
    ]
    log = folder / "prometheus.log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=folder, stdout=output, stderr=output)
    try:
        while (address := _address_in(log)) is None or not _is_ready(address):
            if process.poll() is not None:
                raise RuntimeError(f"Prometheus did not start:\n{log.read_text(encoding='utf-8')}")
            time.sleep(POLL_S)
        with httpx.Client(base_url=address, timeout=60) as client:
            yield Prometheus(client)
    finally:
        process.terminate()
        process.wait(timeout=60)


@dataclass(frozen=True)
class Query:
    """What a panel asks. window: what stands for $__rate_interval is filled in by `at`."""

    panel: str
    legend: str
    expression: str

    def at(self, window: str) -> str:
        """The expression with that rate interval, as Grafana would make it of its step."""
        return self.expression.replace("$__rate_interval", window)


def asked(dashboard: Path) -> list[Query]:
    """Every query of a dashboard's panels."""
    panels = json.loads(dashboard.read_text(encoding="utf-8"))["panels"]
    return [
        Query(panel["title"], target["legendFormat"], target["expr"])
        for panel in panels
        for target in panel.get("targets", [])
    ]


def has_data(result: Sequence[dict[str, Any]]) -> bool:
    """Whether any series has a value that is a number."""
    return any(not math.isnan(float(series["value"][1])) for series in result)


def _configured(folder: Path, targets: Sequence[str], key_file: Path | None, every: str) -> Path:
    """Writes the configuration and the rules into the folder."""
    config = yaml.safe_load((CONFIGURED / "prometheus.yml").read_text(encoding="utf-8"))
    config["global"] = {"scrape_interval": every, "evaluation_interval": every}
    [job] = [job for job in config["scrape_configs"] if job["job_name"] == "mien"]
    job["static_configs"] = [{"targets": list(targets)}]
    if key_file is None:
        del job["authorization"]
    else:
        job["authorization"]["credentials_file"] = str(key_file)
    config["scrape_configs"] = [job]
    rules = yaml.safe_load((CONFIGURED / "rules.yml").read_text(encoding="utf-8"))
    for group in rules["groups"]:
        group.pop("interval", None)
    (folder / "rules.yml").write_text(yaml.safe_dump(rules), encoding="utf-8")
    path = folder / "prometheus.yml"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    return path


def is_installed() -> bool:
    """Whether there is a Prometheus to start."""
    return shutil.which("prometheus") is not None


def _address_in(log: Path) -> str | None:
    """Its address, once its log names the port that the system chose."""
    found = _LISTENING.search(log.read_text(encoding="utf-8"))
    return None if found is None else f"http://{found[1]}"


def _is_ready(address: str) -> bool:
    try:
        return httpx.get(f"{address}/-/ready", timeout=60).is_success
    except httpx.TransportError:
        return False


def _evaluated_s(rule: dict[str, Any]) -> float:
    """When the rule was last evaluated, since 1970; 0 before the first time."""
    return max(datetime.fromisoformat(rule["lastEvaluation"]).timestamp(), 0.0)
