"""The OpenAPI document: what FastAPI cannot know, since bodies are read by uploads.py."""

from collections.abc import Mapping
from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import TypeAdapter

from service.api.fields import Fields, properties_of
from service.api.problems import MEDIA_TYPE, OF_SLUG
from service.api.rights import OPEN, RIGHTS
from service.api.schemas import Problem
from service.api.uploads import JSON, MULTIPART, RAW, Form

_BINARY: Final = {"type": "string", "format": "binary"}
_BASE64: Final = {
    "type": "string",
    "format": "byte",
    "description": "base64 (plain or url-safe, padded or not) or a data URI with ;base64",
}
_PROBLEM: Final = {"$ref": "#/components/schemas/Problem"}
IMAGE_CALL_PROBLEMS: Final = (400, 408, 413, 415, 422, 503)


def takes(form: Form[Any], *, header: str | None = None) -> dict[str, Any]:
    """The `openapi_extra` of a call that takes this form. header: an optional one it reads."""
    headers = [_header(header)] if header else []
    return {
        "parameters": [*(_query(form.fields) if form.images else []), *headers],
        "requestBody": {
            "required": True,
            "content": {kind: {"schema": _schema(form, kind)} for kind in form.accepted},
        },
    }


def takes_query(fields: type[Fields]) -> dict[str, Any]:
    """The `openapi_extra` of a call that takes these fields in its query."""
    return {"parameters": _query(fields)}


def refuses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a call that may answer with problems of these statuses."""
    return {
        status: {
            "description": "; ".join(k.title for k in OF_SLUG.values() if k.status == status),
            "content": {MEDIA_TYPE: {"schema": _PROBLEM}},
        }
        for status in sorted({500, *statuses})
    }


def describe(app: FastAPI) -> dict[str, Any]:
    """The document of the whole application."""
    document = get_openapi(
        title=app.title, version=app.version, description=app.description, routes=app.routes
    )
    schemas = document["components"]["schemas"]
    schemas["Problem"] = TypeAdapter(Problem).json_schema()
    # FastAPI supposes that it validates path parameters; here any text is a valid one.
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    for call in (call for methods in document["paths"].values() for call in methods.values()):
        if "HTTPValidationError" in str(call["responses"].get("422")):
            del call["responses"]["422"]
    _describe_keys(document)
    return document


def _describe_keys(document: dict[str, Any]) -> None:
    """Says of each call that may ask for a key that it may, and what it answers without."""
    document["components"]["securitySchemes"] = {
        "bearer": {"type": "http", "scheme": "bearer"},
        "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    }
    for path, methods in document["paths"].items():
        for method, call in methods.items():
            if RIGHTS.get(f"{method.upper()} {path}", OPEN).scopes is not None:
                call["security"] = [{}, {"bearer": []}, {"header": []}]
                for status, answer in refuses(401, 403, 429, 503).items():
                    call["responses"].setdefault(str(status), answer)


def _query(fields: type[Fields]) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "in": "query",
            "required": False,
            "schema": _as_text(entry),
        }
        for name, entry in properties_of(fields).items()
    ]


def _as_text(entry: Mapping[str, Any]) -> dict[str, Any]:
    """The schema of a field that comes as text: an object is its JSON text, null cannot be said."""
    plain = {key: value for key, value in entry.items() if key != "default" or value is not None}
    if plain.get("type") == "object":
        return {"type": "string", "description": plain.get("description", "") + " (JSON text)"}
    return plain


def _header(name: str) -> dict[str, Any]:
    return {
        "name": name,
        "in": "header",
        "required": False,
        "description": "The same key with the same request gives the same answer, once done.",
        "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"},
    }


def _schema(form: Form[Any], kind: str) -> dict[str, Any]:
    if kind in RAW:
        return _BINARY
    if kind == MULTIPART:
        several = {"type": "array", "minItems": 1, "items": _BINARY}
        images = dict.fromkeys(form.images, several if form.several else _BINARY)
        model: type[Fields] = form.fields
        fields = {name: _as_text(entry) for name, entry in properties_of(model).items()}
        return _object({**images, **fields}, [*form.images, *_required(form.fields)])
    if kind == JSON and form.several:
        one, many = (
            {"image": _BASE64},
            {"images": {"type": "array", "minItems": 1, "items": _BASE64}},
        )
        return {"oneOf": [_json(form.fields, one), _json(form.fields, many)]}
    return _json(form.fields, dict.fromkeys(form.images, _BASE64))


def _json(fields: type[Fields], images: dict[str, Any]) -> dict[str, Any]:
    schema = fields.model_json_schema()
    return _object({**images, **schema["properties"]}, [*images, *_required(fields)])


def _object(properties: dict[str, Any], required: list[str]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": False,
    }


def _required(fields: type[Fields]) -> list[str]:
    return [name for name, entry in fields.model_fields.items() if entry.is_required()]
