"""A call in each of its three forms."""

import base64
import json
from typing import Any

from starlette.testclient import TestClient

FORMS = ("multipart", "json", "raw")


def send(
    client: TestClient,
    path: str,
    form: str,
    images: list[bytes] | dict[str, bytes],
    fields: dict[str, Any] | None = None,
    headers: dict[str, str] | None = None,
) -> Any:
    """The answer. images: a list for `image`, or by name; fields: as JSON has them."""
    fields = fields or {}
    texts = {k: v if isinstance(v, str) else json.dumps(v) for k, v in fields.items()}
    if form == "multipart":
        named = images.items() if isinstance(images, dict) else [("image", i) for i in images]
        files = [(name, (name, data, "application/octet-stream")) for name, data in named]
        return client.post(path, files=files, data=texts, headers=headers)
    if form == "json":
        coded = (
            {name: base64.b64encode(data).decode() for name, data in images.items()}
            if isinstance(images, dict)
            else {"images": [base64.b64encode(data).decode() for data in images]}
        )
        return client.post(path, json={**coded, **fields}, headers=headers)
    [data] = images
    kind = {"Content-Type": "application/octet-stream"}
    return client.post(path, content=data, params=texts, headers={**kind, **(headers or {})})


def problem(answer: Any) -> dict[str, Any]:
    """The answer's problem, which is one: its type, its status and its id are in order."""
    body: dict[str, Any] = answer.json()
    assert answer.headers["content-type"] == "application/problem+json"
    assert body["type"].startswith("/problems/")
    assert body["status"] == answer.status_code
    assert body["title"]
    assert body["detail"]
    assert body["request_id"] == answer.headers["x-request-id"]
    assert "Traceback" not in answer.text
    return body


def slug(answer: Any) -> str:
    """The slug of the answer's problem."""
    return str(problem(answer)["type"].rsplit("/", 1)[1])


def without(body: dict[str, Any], *names: str) -> dict[str, Any]:
    """The body without what differs from call to call."""
    return {k: v for k, v in body.items() if k not in ("request_id", "timings_ms", *names)}
