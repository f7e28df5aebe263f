"""The server process's resident memory after 100 and after 1,000 requests.

    python -m benchmarks.memory [--first 100] [--last 1000]

Photographs of several sizes, one a request, in turns of /identify, /detect, /verify and /enroll
(each photograph is enrolled once; later turns of it are repeats under the same key, so that what is
kept of people does not grow). Writes benchmarks/results/memory.md and memory.json.
"""

import argparse
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from benchmarks.hardware import hardware
from benchmarks.served import RESULTS, heading, photographs, serving

SIZES = ((320, 240), (640, 480), (480, 640), (1280, 960), (1920, 1080), (250, 250))
OF_EACH_SIZE = 3
MOST_RATIO = 1.05


def resident_mib(process: int) -> float:
    """The resident memory of a process in MiB."""
    status = Path(f"/proc/{process}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


def calls_of(client: httpx.Client) -> list[Callable[[int, bytes], httpx.Response]]:
    """The calls that take turns; each gets the photograph's number and the photograph."""
    return [
        lambda _, photo: client.post("/identify", files={"image": photo}),
        lambda _, photo: client.post("/detect", files={"image": photo}),
        lambda _, photo: client.post("/verify", files={"image_a": photo, "image_b": photo}),
        lambda n, photo: client.post(
            "/enroll",
            files={"image": photo},
            data={"person_id": f"p{n}", "face": "largest"},
            headers={"Idempotency-Key": f"photograph {n}"},
        ),
    ]


def measure(client: httpx.Client, process: int, marks: list[int]) -> dict[int, float]:
    """The resident memory in MiB after so many requests."""
    photos = [photo for size in SIZES for photo in photographs(OF_EACH_SIZE, *size)]
    calls = calls_of(client)
    found = {}
    for request in range(max(marks)):
        number = request // len(calls) % len(photos)
        response = calls[request % len(calls)](number, photos[number])
        if response.status_code != 422:  # a photograph in which no face is found
            response.raise_for_status()
        if request + 1 in marks:
            found[request + 1] = round(resident_mib(process), 1)
    return found


def page(result: dict[str, Any]) -> str:
    """The result as Markdown."""
    first, last = result["resident_mib"]
    verdict = "kept" if result["ratio"] <= MOST_RATIO else "broken"
    return "\n".join(
        [
            *heading(
                "Resident memory of the server process",
                f"python -m benchmarks.memory --first {first} --last {last}",
                result["hardware"],
            ),
            "| requests | MiB |",
            "| --- | --- |",
            *(f"| {requests} | {mib} |" for requests, mib in result["resident_mib"].items()),
            "",
            f"ratio {result['ratio']} (asked for: at most {MOST_RATIO}: {verdict}); image sizes "
            + ", ".join(f"{width}x{height}" for width, height in SIZES),
            "",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--first", type=int, default=100)
    parser.add_argument("--last", type=int, default=1000)
    given = parser.parse_args()
    where = hardware("onnxruntime", "opencv-python-headless", "faiss-cpu")
    with tempfile.TemporaryDirectory() as folder, serving(Path(folder)) as (client, process):
        found = measure(client, process, [given.first, given.last])
    result = {
        "hardware": where,
        "resident_mib": found,
        "ratio": round(found[given.last] / found[given.first], 4),
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "memory.json").write_text(json.dumps(result, indent=1) + "\n")
    (RESULTS / "memory.md").write_text(page(result))
    print(page(result))


if __name__ == "__main__":
    main()
