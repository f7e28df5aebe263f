"""/openapi.json, and /docs: the same as a page that needs nothing from any other host."""

import base64
import hashlib
from collections.abc import Mapping
from html import escape
from typing import Any, Final

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, JSONResponse

from service.api.console import HEADERS, POLICY

router = APIRouter(include_in_schema=False)
_STYLE: Final = """
body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}
code,pre{font:14px/1.4 ui-monospace,monospace}
details{border:1px solid #8886;border-radius:6px;margin:.5rem 0;padding:.4rem .8rem}
summary{cursor:pointer} summary b{display:inline-block;min-width:4.5rem}
table{border-collapse:collapse}
td,th{text-align:left;vertical-align:top;padding:.15rem .8rem .15rem 0}
pre{background:#8882;padding:.6rem;overflow:auto}
:root{color-scheme:light dark}
"""
_STYLE_HASH: Final = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
_PAGE_HEADERS: Final = {
    **HEADERS,  # with the page's own style, and no other, in the policy
    "Content-Security-Policy": POLICY.replace(
        "style-src 'self'", f"style-src 'sha256-{_STYLE_HASH}'"
    ),
}


@router.get("/docs")
async def docs(request: Request) -> HTMLResponse:
    """The page."""
    return HTMLResponse(page(request.app.openapi()), headers=_PAGE_HEADERS)


@router.get("/openapi.json")
async def openapi(request: Request) -> JSONResponse:
    """The document."""
    return JSONResponse(request.app.openapi(), headers=dict(HEADERS))


def page(document: Mapping[str, Any]) -> str:
    """The document as HTML: each call with its fields and answers, and the shapes they refer to."""
    info = document["info"]
    calls = [
        _call(method.upper(), path, call)
        for path, methods in document["paths"].items()
        for method, call in methods.items()
    ]
    schemas = [
        f'<h3 id="{escape(name)}">{escape(name)}</h3><p>{escape(s.get("description", ""))}</p>'
        f"{_fields(s)}"
        for name, s in sorted(document["components"]["schemas"].items())
    ]
    title = f"{escape(info['title'])} {escape(info['version'])}"
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style>'
        f"<h1>{title}</h1><p>{escape(info['description'])}</p>"
        '<p>For machines: <a href="/openapi.json">openapi.json</a></p>'
        f"<h2>Calls</h2>{''.join(calls)}<h2>Shapes</h2>{''.join(schemas)}</html>"
    )


def _call(method: str, path: str, call: Mapping[str, Any]) -> str:
    parameters = "".join(
        f"<tr><td><code>{escape(p['name'])}</code><td>{p['in']}"
        f"<td>{_shape(p['schema'])}<td>{escape(p['schema'].get('description', ''))}"
        for p in call.get("parameters", [])
    )
    bodies = "".join(
        f"<h4>Body, {escape(kind)}</h4>{_body(body['schema'])}"
        for kind, body in call.get("requestBody", {}).get("content", {}).items()
    )
    answers = "".join(
        f"<tr><td>{status}<td>{_answer(answer)}" for status, answer in call["responses"].items()
    )
    return (
        f"<details><summary><b>{method}</b> <code>{escape(path)}</code></summary>"
        f"<p>{escape(call.get('description', ''))}</p>"
        + (f"<h4>Path and query</h4><table>{parameters}</table>" if parameters else "")
        + bodies
        + f"<h4>Answers</h4><table>{answers}</table></details>"
    )


def _body(schema: Mapping[str, Any]) -> str:
    options = schema.get("oneOf", [schema])
    return "<p>or</p>".join(_fields(option) or _shape(option) for option in options)


def _answer(answer: Mapping[str, Any]) -> str:
    shapes = [_shape(c["schema"]) for c in answer.get("content", {}).values() if "schema" in c]
    return f"{escape(answer.get('description', ''))}<td>{' or '.join(shapes)}"


def _fields(schema: Mapping[str, Any]) -> str:
    rows = [
        f"<tr><td><code>{escape(name)}</code>{'' if name in schema.get('required', ()) else '?'}"
        f"<td>{_shape(entry)}<td>{escape(entry.get('description', ''))}"
        for name, entry in schema.get("properties", {}).items()
    ]
    return f"<table>{''.join(rows)}</table>" if rows else ""


def _shape(schema: Mapping[str, Any]) -> str:
    if "$ref" in schema:
        name = escape(schema["$ref"].rsplit("/", 1)[1])
        return f'<a href="#{name}">{name}</a>'
    if "anyOf" in schema:
        return " or ".join(_shape(option) for option in schema["anyOf"])
    if "enum" in schema:
        return escape(", ".join(map(str, schema["enum"])))
    if schema.get("type") == "array":
        return f"list of {_shape(schema['items'])}"
    bounds = {
        "minimum": "at least {}",
        "exclusiveMinimum": "above {}",
        "maximum": "at most {}",
        "exclusiveMaximum": "below {}",
        "default": "default {}",
    }
    said = [text.format(schema[key]) for key, text in bounds.items() if schema.get(key) is not None]
    kind = "bytes" if schema.get("format") == "binary" else str(schema.get("type", "any"))
    return escape(", ".join([kind, *said]))
