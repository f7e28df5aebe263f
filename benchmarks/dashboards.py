"""What the dashboards show of a real service: pictures of their queries' answers.

    python -m benchmarks.dashboards [--minutes 6]

Starts the service and Debian's Prometheus on a folder of their own, makes traffic that changes
(LFW's photographs: people who are enrolled and strangers, a burst that fills the queue, photographs
out of focus), asks Prometheus what each panel asks, and draws the answers where the dashboard has
its panels. Writes docs/pictures/dashboard-*.png. No photograph is in them.
"""

import argparse
import json
import os
import random
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Final
from zipfile import ZipFile

import cv2
import httpx
import numpy as np

from benchmarks.panels import Asking, picture
from benchmarks.prometheus import DASHBOARDS, watching
from benchmarks.served import LFW, ROOT, serving

PICTURES: Final = ROOT / "docs" / "pictures"
PEOPLE: Final = 60  # who are enrolled, with one photograph each
ENROLLED_BEFORE: Final = 25  # the rest come while it runs
STRANGERS: Final = 60
FRAMES_A_S: Final = 3.0
WARM_S: Final = 20.0
CROWD: Final = 5  # callers at once in a burst


class People:
    """LFW's photographs: of those who are enrolled, other ones of them, and of strangers."""

    def __init__(self) -> None:
        with ZipFile(LFW) as archive:
            by_name: dict[str, list[str]] = {}
            for name in sorted(archive.namelist()):
                by_name.setdefault(Path(name).parent.name, []).append(name)
            several = [names for names in by_name.values() if len(names) > 2][:PEOPLE]
            alone = [names[0] for names in by_name.values() if len(names) == 1][:STRANGERS]
            self.enrolled = [archive.read(names[0]) for names in several]
            self.again = [[archive.read(name) for name in names[1:4]] for names in several]
            self.strangers = [archive.read(name) for name in alone]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=6.0)
    minutes = parser.parse_args().minutes
    os.environ["MIEN_QUEUE"] = "4"  # so that a burst is refused
    with tempfile.TemporaryDirectory() as name:
        data, folder = Path(name) / "data", Path(name) / "prometheus"
        data.mkdir()
        folder.mkdir()
        with serving(data) as (client, _):
            make_traffic(client, WARM_S)  # its memory and its pools fill
            target = f"{client.base_url.host}:{client.base_url.port}"
            with watching(folder, [target], every="2s") as prometheus:
                prometheus.wait_for_scrapes(1)
                begin_s = time.time()
                make_traffic(client, minutes * 60)
                prometheus.wait_for_scrapes(1)
                for path in sorted(DASHBOARDS.glob("*.json")):
                    board = json.loads(path.read_text(encoding="utf-8"))
                    figure = picture(board, Asking(prometheus, begin_s, time.time()))
                    figure.savefig(PICTURES / f"dashboard-{path.stem}.png", dpi=90)


def make_traffic(client: httpx.Client, seconds: float) -> None:
    """Calls for so long: steady, with a burst before the middle, out of focus towards the end."""
    people, chance = People(), random.Random(1)
    for index in range(ENROLLED_BEFORE):
        enrol(client, people, index)
    coming = iter(range(ENROLLED_BEFORE, PEOPLE))
    begun = time.monotonic()
    with ThreadPoolExecutor(CROWD) as pool:
        while (share := (time.monotonic() - begun) / seconds) < 1:
            blur_px = 3.0 if share > 0.72 else 0.0
            calls = CROWD if 0.4 < share < 0.5 else 1
            calling = partial(one_call, client, people, chance)
            list(pool.map(calling, [blur_px] * calls))
            if chance.random() < 0.05:
                for index in coming:
                    enrol(client, people, index)
                    break
            if calls == 1:
                time.sleep(chance.expovariate(FRAMES_A_S))


def enrol(client: httpx.Client, people: People, index: int) -> None:
    gallery = ("default", "staff")[index % 3 == 0]
    if index == 0:
        client.post("/galleries", json={"name": "staff"})
    fields = {"person_id": f"person-{index}", "gallery": gallery, "face": "largest"}
    client.post("/enroll", files={"image": people.enrolled[index]}, data=fields)


def one_call(client: httpx.Client, people: People, chance: random.Random, blur_px: float) -> None:
    """A call as a client might make it; most are /identify."""
    known = chance.random() < 0.6
    photograph = chance.choice(chance.choice(people.again) if known else people.strangers)
    if blur_px:
        photograph = out_of_focus(photograph, blur_px)
    image = {"image": photograph}
    kind = chance.random()
    if kind < 0.7:
        client.post("/identify", files=image)
    elif kind < 0.8:
        both = {"image_a": photograph, "image_b": chance.choice(people.strangers)}
        client.post("/verify", files=both, data={"face": "largest"})
    elif kind < 0.9:
        client.post("/analyze", files=image, data={"features": "expression,attributes,quality"})
    elif kind < 0.95:
        client.post("/identify", files={"image": crowd(people, chance)})
    elif kind < 0.98:
        client.post("/detect", files={"image": b"no photograph"})
    else:
        client.get("/galleries/nobody")


def out_of_focus(photograph: bytes, sigma_px: float) -> bytes:
    pixels = cv2.imdecode(np.frombuffer(photograph, np.uint8), cv2.IMREAD_COLOR)
    return cv2.imencode(".jpg", cv2.GaussianBlur(pixels, (0, 0), sigma_px))[1].tobytes()


def crowd(people: People, chance: random.Random) -> bytes:
    """Four photographs in one."""
    shown = [
        cv2.imdecode(np.frombuffer(one, np.uint8), cv2.IMREAD_COLOR)
        for one in chance.sample(people.strangers, 4)
    ]
    pixels = cv2.vconcat([cv2.hconcat(shown[:2]), cv2.hconcat(shown[2:])])
    return cv2.imencode(".jpg", pixels)[1].tobytes()


if __name__ == "__main__":
    main()
