"""Schemathesis over the OpenAPI document: no 5xx, and every answer is as the document says.

Its calls follow the document (positive) or break it in one place (negative); images are drawn ones,
broken ones or none. The same calls every time: the examples are derandomised.
"""

import base64
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from fastapi import FastAPI
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from service.app import create_app
from service.settings import Settings
from tests.conftest import open_drawn, ready_client
from tests.drawn import drawn_photo

IMAGES = [drawn_photo(), drawn_photo(1, size=(200, 160)), drawn_photo(1, 2, size=(320, 160))]
images = st.sampled_from([*IMAGES, b"", b"no image", IMAGES[1][:300]])
schemathesis.openapi.format("binary", images)
schemathesis.openapi.format("byte", images.map(lambda data: base64.b64encode(data).decode()))
schemathesis.openapi.media_type("image/*", images)
schemathesis.openapi.media_type("application/octet-stream", images)

# The document cannot say that a field is given once, in query or body, or that a photo has a face.
schemathesis.checks.load_all_checks()
POSITIVE_DATA_ACCEPTANCE = schemathesis.checks.CHECKS.get_one("positive_data_acceptance")
LABELS = [
    f"{method.upper()} {path}"
    for path, methods in create_app(Settings()).openapi()["paths"].items()
    for method in methods
]


@pytest.fixture(scope="module")
def app(models: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FastAPI]:
    """A service that runs."""
    data = tmp_path_factory.mktemp("data")
    app = create_app(
        Settings(models=models, recognition="stand-in", data=data),
        open_engine=open_drawn,
    )
    with ready_client(app):
        yield app


@pytest.mark.parametrize("mode", list(schemathesis.GenerationMode))
@pytest.mark.parametrize("label", LABELS)
def test_every_call_answers_as_its_document_says(
    app: FastAPI, label: str, mode: schemathesis.GenerationMode
) -> None:
    document = schemathesis.openapi.from_asgi("/openapi.json", app)
    [operation] = [o.ok() for o in document.get_all_operations() if o.ok().label == label]
    if mode.is_negative and not (operation.body or operation.query):
        return  # nothing of it can be broken: a path is any text

    @settings(
        max_examples=20,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(operation.as_strategy(mode))
    def check(case: schemathesis.Case) -> None:
        case.call_and_validate(excluded_checks=[POSITIVE_DATA_ACCEPTANCE])

    check()
