"""What broken images and want of memory leave behind, in a service in a process of its own."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

# A call with the images in stdin's place has been answered; what it left is in the last line.
SERVICE: Final = """
import io, json, resource, sys
import numpy as np
from PIL import Image
from service.app import create_app
from service.settings import Settings
from tests.conftest import NAME, open_drawn, ready_client
from tests.drawn import drawn_photo

def resident_mib():
    return int(open("/proc/self/status").read().split("VmRSS:")[1].split()[0]) / 1024

def flat(kind, width, height):
    file = io.BytesIO()
    Image.new("RGB", (width, height), (90, 110, 130)).save(file, kind)
    return file.getvalue()

def send(client, path, images):
    return client.post(path, files=[("image", image) for image in images])

models, data = sys.argv[1:3]
settings = Settings(models=models, recognition=NAME, data=data, photographs=2)
"""
LEFT: Final = """
kind, cut = sys.argv[3], float(sys.argv[4])
whole = flat(kind, 4000, 3000)
broken = whole[: int(len(whole) * cut)]
with ready_client(create_app(settings, open_engine=open_drawn)) as client:
    def call(path, images):
        return send(client, path, images)
    for path in ("/detect", "/enroll"):
        assert call(path, [drawn_photo(1)] * 4).is_success
        call(path, [broken] * 2)
        call(path, [flat(kind, 4000, 3000)])
    before = resident_mib()
    answers = [call("/detect", [broken] * 12), call("/enroll", [broken] * 12)]
    answers.append(call("/enroll", [broken]))
    after = resident_mib()
statuses = [answer.status_code for answer in answers]
errors = {image["error"]["type"] for image in answers[0].json()["images"]}
print(json.dumps([statuses, sorted(errors), before, after]))
"""

STARVED: Final = """
photo = flat("PNG", 3000, 2000)
answers = []
with ready_client(create_app(settings, open_engine=open_drawn)) as client:
    def call():
        answer = send(client, "/detect?min_face=400", [photo])
        waits = "retry-after" in answer.headers
        answers.append([answer.status_code, answer.json().get("type"), waits])
    call()
    page = resource.getpagesize()
    held = int(open("/proc/self/statm").read().split()[0]) * page
    for more_mib in (2, 12, 24, 36, 48):
        resource.setrlimit(resource.RLIMIT_AS, (held + (more_mib << 20), resource.RLIM_INFINITY))
        call()
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY,) * 2)
    call()
print(json.dumps(answers))
"""


def said(script: str, *words: object) -> str:
    """What a service that runs this script prints last."""
    done = subprocess.run(
        [sys.executable, "-c", SERVICE + script, *map(str, words)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout.splitlines()[-1]


@pytest.mark.skipif(sys.platform != "linux", reason="/proc tells the resident memory")
@pytest.mark.parametrize(("kind", "cut"), [("PNG", 0.5), ("JPEG", 0.9)])
def test_broken_images_are_gone_with_their_answer(
    models: Path, tmp_path: Path, kind: str, cut: float
) -> None:
    """Twelve pictures of 12 Mpx are 36 MiB each as long as anything holds their decoders."""
    statuses, errors, before, after = json.loads(said(LEFT, models, tmp_path, kind, cut))
    assert statuses == [200, 422, 422]
    assert errors == ["/problems/image-truncated"]
    assert after < before * 1.1


@pytest.mark.skipif(sys.platform != "linux", reason="/proc tells the size of the process")
def test_a_call_without_memory_is_refused_with_503_and_the_next_is_answered(
    models: Path, tmp_path: Path
) -> None:
    first, *starved, last = json.loads(said(STARVED, models, tmp_path))
    assert first == last == [200, None, False]
    assert [503, "/problems/out-of-memory", True] in starved
    assert all(a in (first, [503, "/problems/out-of-memory", True]) for a in starved), starved
