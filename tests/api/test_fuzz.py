"""Broken image files of many kinds: whatever comes in, what goes out is an answer or a problem."""

import base64
import io
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from starlette.testclient import TestClient

from service.app import create_app
from service.settings import Settings
from tests.api.wire import problem
from tests.conftest import ready_client
from tests.drawn import drawn_photo
from tests.shared import SHARED

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "AVIF", "HEIF", "PPM", "ICO")
ROUNDS = 800
PATHS = ("/detect", "/expression", "/analyze?features=attributes,quality,identity,embedding")
PHOTOS = SHARED / "golden" / "photos"


@pytest.fixture(scope="module")
def client(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """A client of a service that finds faces by its real detector."""
    settings = Settings(models=models, recognition="stand-in", data=tmp_path_factory.mktemp("data"))
    with ready_client(create_app(settings)) as client:
        yield client


def originals() -> list[bytes]:
    """Image files of every format: real photographs where they lie beside, drawn ones else."""
    if PHOTOS.exists():
        photos = [Image.open(path) for path in sorted(PHOTOS.iterdir())[::12]]
    else:
        photos = [Image.open(io.BytesIO(drawn_photo(1, 2)))]
    files = []
    for index, name in enumerate(FORMATS):
        photo = photos[index % len(photos)].convert("RGB")
        photo.thumbnail((160, 160))
        file = io.BytesIO()
        try:
            photo.save(file, name)
        except (KeyError, OSError):  # this Pillow cannot write the format
            continue
        files.append(file.getvalue())
    return files


def mutated(data: bytes, other: bytes, rng: random.Random) -> bytes:
    """The file with something wrong in it; half of the time near its head, where the fields are."""
    broken = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8, 64))):
        reach = min(len(broken), 512) if rng.random() < 0.5 else len(broken)
        at = rng.randrange(max(1, reach))
        match rng.randrange(7):
            case 0:
                broken[at : at + 1] = bytes([rng.randrange(256)])
            case 1:
                broken[at : at + 1] = (
                    bytes([broken[at] ^ (1 << rng.randrange(8))]) if broken else b""
                )
            case 2:
                del broken[at:]
            case 3:
                del broken[at : at + rng.randrange(1, 64)]
            case 4:
                broken[at:at] = rng.randbytes(rng.randrange(1, 64))
            case 5:
                broken[at : at + 4] = rng.choice((b"\xff" * 4, b"\0" * 4, b"\x7f\xff\xff\xff"))
            case 6:
                broken[at:] = other[rng.randrange(len(other)) :]
    return bytes(broken)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_no_image_file_is_answered_with_a_failure(client: TestClient) -> None:
    files = originals()
    seen: dict[Any, int] = {}
    for seed in range(ROUNDS * len(files)):
        rng = random.Random(seed)
        data = mutated(files[seed % len(files)], rng.choice(files), rng)
        path = PATHS[seed % len(PATHS)]
        answer = client.post(path, content=data, headers={"Content-Type": "image/any"})
        assert answer.status_code in (200, 413, 422), f"seed {seed}: {answer.text}"
        if answer.status_code != 200:
            problem(answer)
        seen[answer.status_code] = seen.get(answer.status_code, 0) + 1
    assert seen[200] > 0
    assert seen[422] > 0
    assert client.get("/readyz").status_code == 200


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_no_body_is_answered_with_a_failure(client: TestClient) -> None:
    photo = drawn_photo(1, size=(200, 160))
    form = (
        b'--b\r\nContent-Disposition: form-data; name="top_k"\r\n\r\n3\r\n'
        b'--b\r\nContent-Disposition: form-data; name="threshold"\r\n\r\n0.5\r\n'
        b'--b\r\nContent-Disposition: form-data; name="features"\r\n\r\nidentity\r\n'
        b'--b\r\nContent-Disposition: form-data; name="features"\r\n\r\nquality\r\n'
        b'--b\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n'
        b"Content-Type: image/png\r\n\r\n" + photo + b"\r\n--b--\r\n"
    )
    text = json.dumps(
        {
            "images": [base64.b64encode(photo).decode()],
            "top_k": 3,
            "gallery": "default",
            "features": ["identity", "quality"],
        }
    ).encode()
    bodies = {"multipart/form-data; boundary=b": form, "application/json": text}
    seen = set()
    for seed in range(ROUNDS * 4):
        rng = random.Random(seed)
        kind, body = rng.choice(list(bodies.items()))
        data = mutated(body, rng.choice(list(bodies.values())), rng)
        answer = client.post("/analyze", content=data, headers={"Content-Type": kind})
        assert answer.status_code in (200, 400, 404, 413, 422), f"seed {seed}: {answer.text}"
        seen.add(answer.status_code)
    assert seen >= {200, 400, 422}
