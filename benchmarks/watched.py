"""What a request pays for being watched: its record, the metrics, the line in the log, the spans.

    python -m benchmarks.watched [--calls 2000]

An ASGI application that only answers stands inside the envelope of every call, and notes what an
/identify with one face notes: a span of each of six stages, an image, a decision. Each row adds a
reader; the log goes to /dev/null, the spans to a collector that is not there, in their own thread.
Figures are CPU time of the thread that serves, the least of several rounds: the machine's other
work is not in it. In the last rows the counts lie in files, as with several worker processes, and a
scrape adds up as many. Writes benchmarks/results/watched.md and watched.json.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from benchmarks.hardware import hardware
from benchmarks.served import RESULTS, heading
from service.api.envelope import Envelope
from service.observe import logs, metrics
from service.observe.exposition import Exposition, House
from service.observe.gpu import no_gpus
from service.observe.record import Reader
from service.observe.spans import Spans
from service.settings import metrics_folder

ROUNDS: Final = 7
STAGES: Final = ("decode", "detect", "align", "embed", "search", "decide")
NOBODY: Final = "http://127.0.0.1:9"
_IN_FILES: Final = "in files"


class _Route:
    path = "/identify"


class _House:
    routes: tuple[Any, ...] = ()


async def answering(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """An answer, and what an /identify notes on its way."""
    scope["route"] = _Route
    record = scope.get("state", {}).get("record")
    if record is not None:
        for stage in STAGES:
            with record.stages.measure(stage):
                pass
        record.stages.saw([0.8])
        record.stages.decided("match", 0.6)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"{}"})


def us_a_call(app: Any, calls: int) -> float:
    """CPU microseconds of a call, the least of the rounds."""

    async def send(_: Any) -> None:
        return None

    async def serve() -> float:
        begun = time.thread_time()
        for _ in range(calls):
            scope = {"type": "http", "method": "POST", "path": "/identify", "headers": []}
            await app({**scope, "app": _House, "query_string": b""}, None, send)
        return (time.thread_time() - begun) / calls * 1e6

    return min(asyncio.run(serve()) for _ in range(ROUNDS))


def ms_a_scrape() -> float:
    """CPU milliseconds of what /metrics writes, the store left out."""
    exposition = Exposition({"version": "1"}, metrics_folder(), no_gpus)

    def scrape() -> float:
        begun = time.thread_time()
        exposition.text("", House([], {"default": 1}, 1))
        return (time.thread_time() - begun) * 1e3

    return min(scrape() for _ in range(ROUNDS))


def measure(calls: int) -> dict[str, float]:
    """Microseconds a call by what is added, and milliseconds a scrape."""

    def watched(*readers: Reader) -> float:
        return us_a_call(Envelope(answering, readers=readers, recorded=True), calls)

    spans = Spans(NOBODY, version="1")
    rows: dict[str, Callable[[], float]] = {
        "no envelope": lambda: us_a_call(answering, calls),
        "the record": watched,
        "and metrics": lambda: watched(metrics.count),
        "and the log": lambda: watched(metrics.count, logs.write),
        "and spans": lambda: watched(metrics.count, logs.write, spans.send),
    }
    told = {name: round(row(), 1) for name, row in rows.items()}
    spans.close()
    return {**told, "a scrape, ms": round(ms_a_scrape(), 2)}


def measured_apart(calls: int, folder: str | None) -> dict[str, float]:
    """`measure` in a process of its own. folder: where its counts lie, None for its memory."""
    environment = dict(os.environ)
    environment.pop("PROMETHEUS_MULTIPROC_DIR", None)
    if folder is not None:
        environment["PROMETHEUS_MULTIPROC_DIR"] = folder
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.watched", "--calls", str(calls), "--bare"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        check=True,
    )
    result: dict[str, float] = json.loads(done.stdout)
    return result


def page(result: dict[str, Any]) -> str:
    """The result as Markdown."""
    command = f"python -m benchmarks.watched --calls {result['calls']}"
    rows = result["rows"]
    table = [
        f"| {name} | {alone} | {rows[_IN_FILES][name]} |" for name, alone in rows["alone"].items()
    ]
    return "\n".join(
        [
            *heading("What a request pays for being watched", command, result["hardware"]),
            "CPU microseconds of a call, each row with all above it:",
            "",
            "| | one process | several (counts in files) |",
            "| --- | --- | --- |",
            *table,
            "",
        ]
    )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--calls", type=int, default=2000)
    parser.add_argument("--bare", action="store_true", help="measure here, print JSON")
    given = parser.parse_args(arguments)
    if given.bare:
        logs.configure("json")
        print(json.dumps(measure(given.calls)))
        return
    where = hardware("prometheus-client", "structlog", "opentelemetry-sdk")
    with tempfile.TemporaryDirectory() as folder:
        rows = {
            "alone": measured_apart(given.calls, None),
            _IN_FILES: measured_apart(given.calls, folder),
        }
    result = {"hardware": where, "calls": given.calls, "rows": rows}
    (RESULTS / "watched.json").write_text(json.dumps(result, indent=1) + "\n")
    (RESULTS / "watched.md").write_text(page(result))
    print(page(result))


if __name__ == "__main__":
    main()
