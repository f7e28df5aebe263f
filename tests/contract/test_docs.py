"""The docs list every route, setting and error, as they are, and nothing that is not there."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from service.api.console import router as console
from service.api.docs import router as pages
from service.api.problems import OF_SLUG
from service.app import create_app
from service.observe.gpu import Gpu
from service.settings import PREFIX, SHIPPED_MODELS, Settings
from service.vision.quality import BOUNDS
from tests.conftest import open_drawn, ready_client
from tests.drawn import drawn_photo

DOCS = Path(__file__).parents[2] / "docs"
SNAPSHOT = Path(__file__).parent / "openapi.json"


@pytest.fixture(scope="module")
def app() -> FastAPI:
    return create_app(Settings())


def rows(name: str, columns: int) -> list[list[str]]:
    """The cells of every table row of that many columns in a page, heads and rules left out."""
    lines = (DOCS / name).read_text(encoding="utf-8").splitlines()
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line[:1] == "|"]
    return [row for row in cells if len(row) == columns and row[0].startswith("`")]


def test_every_setting_is_documented_with_its_default_and_nothing_else_is() -> None:
    documented = {name.strip("`"): default for name, default, _, _ in rows("settings.md", 4)}
    assert documented == {
        PREFIX + name.upper(): shown(field.default) for name, field in Settings.model_fields.items()
    }


def shown(default: Any) -> str:
    return "the models that ship" if default == SHIPPED_MODELS else f"`{default}`"


def test_every_setting_has_a_unit_and_a_meaning() -> None:
    assert all(unit and meaning.endswith(".") for _, _, unit, meaning in rows("settings.md", 4))


def test_every_error_is_documented_as_it_is_and_nothing_else_is() -> None:
    documented = {tuple(row) for row in rows("errors.md", 4)}
    assert documented == {
        (f"`{kind.slug}`", str(kind.status), kind.title, kind.advice) for kind in OF_SLUG.values()
    }


def test_every_call_is_documented_and_nothing_else_is(app: FastAPI) -> None:
    documented = {call.strip("`") for call, _, _ in rows("api.md", 3) if " /" in call}
    served = {
        f"{method.upper()} {path}"
        for path, methods in app.openapi()["paths"].items()
        for method in methods
    }
    for page in (*pages.routes, *console.routes):
        served.add(f"GET {page.path}")  # type: ignore[attr-defined]
    assert documented == served


def test_every_field_of_a_call_is_documented(app: FastAPI) -> None:
    documented = {call.strip("`"): fields for call, fields, _ in rows("api.md", 3) if " /" in call}
    for path, methods in app.openapi()["paths"].items():
        for method, call in methods.items():
            for name in fields_of(call):
                assert f"`{name}`" in documented[f"{method.upper()} {path}"]


def fields_of(call: dict[str, Any]) -> set[str]:
    """The names of a call's fields besides its images and what is in its path."""
    schema = call.get("requestBody", {}).get("content", {}).get("application/json", {})
    bodies = schema.get("schema", {}).get("oneOf", [schema.get("schema", {})])
    names = {name for body in bodies for name in body.get("properties", {})}
    names |= {p["name"] for p in call.get("parameters", []) if p["in"] != "path"}
    return {name for name in names if not name.startswith("image")}


def test_the_bounds_of_quality_are_documented_as_they_are() -> None:
    documented = {name.strip("`"): bounds for name, _, *bounds in rows("quality.md", 4)}
    for index, level in enumerate(("standard", "strict")):
        told = {name: bounds[index] for name, bounds in documented.items()}
        assert told == {
            component: shown_bounds(least, most)
            for component, (least, most) in BOUNDS[level].items()
        }


def shown_bounds(least: float | None, most: float | None) -> str:
    if least is None:
        return f"at most {most}"
    return f"at least {least}" if most is None else f"{least} to {most}"


def test_every_metric_is_documented_as_it_is_shown_and_nothing_else_is(settings: Settings) -> None:
    """After some calls, on a machine with a GPU, so that every metric has been counted."""
    app = create_app(settings, open_engine=open_drawn)
    service, gpus = app.state.service, [Gpu(0, 0.5, memory_used_bytes=1, memory_bytes=2)]
    service.exposition = dataclasses.replace(service.exposition, gpus=lambda: gpus)
    with ready_client(app) as client:
        for path in ("/enroll", "/identify", "/path-of-nobody"):
            client.post(path, files={"image": drawn_photo(1)})
        text = client.get("/metrics").text
    documented = {
        name.strip("`"): (kind, {label.strip("` ") for label in labels.split(",") if label})
        for name, kind, _, labels, _ in rows("metrics.md", 5)
    }
    assert documented == {
        shown_name(family): (family.type, labels_of(family))
        for family in text_string_to_metric_families(text)
    }
    assert all(unit and meaning.endswith(".") for _, _, unit, _, meaning in rows("metrics.md", 5))


def shown_name(family: Metric) -> str:
    """The name by which it is asked for."""
    return family.name + ("_total" if family.type == "counter" else "")


def labels_of(family: Metric) -> set[str]:
    """Its labels, without those that its type brings."""
    assert family.samples, f"{family.name} was not counted"
    return {label for sample in family.samples for label in sample.labels} - {"le"}


def test_the_openapi_document_is_as_it_was(app: FastAPI) -> None:
    """A change of the wire is made on purpose: remove the file, run again, read the difference."""
    document = said(app.openapi())
    if not SNAPSHOT.exists():
        text = json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False)
        SNAPSHOT.write_text(text + "\n", encoding="utf-8")
        pytest.fail(f"{SNAPSHOT.name} was written; read it and commit it")
    assert document == json.loads(SNAPSHOT.read_text(encoding="utf-8"))


def said(value: Any) -> Any:
    """The document without what the libraries make up and may change: titles, ids, versions."""
    if isinstance(value, dict):
        made_up = ("operationId", "summary", "info", "openapi")
        return {
            key: said(entry)
            for key, entry in value.items()
            if key not in made_up and not (key == "title" and isinstance(entry, str))
        }
    return [said(entry) for entry in value] if isinstance(value, list) else value
