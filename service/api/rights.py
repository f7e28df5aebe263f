"""What each call asks of a key, and as what the audit log knows it: one table, call by call.

A new call gets a line here; a test fails without one. docs/keys.md says the same to callers.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from starlette.routing import compile_path


@dataclass(frozen=True)
class Right:
    """What a call asks of a key.

    scopes: any of them will do; () any key, None: no key is asked for. act: its name in the audit
    log, None: it has none. changes: it changes what is kept, so that its beginning is recorded too.
    """

    scopes: tuple[str, ...] | None
    act: str | None = None
    changes: bool = False


OPEN: Final = Right(None)
ANY_KEY: Final = Right(())
_WHO_SEES_GALLERIES: Final = ("recognise", "enrol", "administer")
_WHO_SEES_PEOPLE: Final = ("enrol", "administer")


def _changes(scope: str, act: str) -> Right:
    return Right((scope,), act, changes=True)


_GALLERY: Final = "/galleries/{gallery}"
_PERSON: Final = f"{_GALLERY}/persons/{{person_id}}"
_FACE: Final = f"{_PERSON}/faces/{{face_id}}"
RIGHTS: Final[Mapping[str, Right]] = {
    "GET /": OPEN,
    "GET /console/{file}": OPEN,
    "GET /docs": OPEN,
    "GET /healthz": OPEN,
    "GET /openapi.json": OPEN,
    "GET /problems/{slug}": OPEN,
    "GET /readyz": OPEN,
    "GET /metrics": Right(("observe",)),
    "GET /models": ANY_KEY,
    "GET /models/{name}": ANY_KEY,
    "GET /models/{name}/calibration": ANY_KEY,
    "POST /detect": Right(("recognise",)),
    "POST /identify": Right(("recognise",), "identify"),
    "POST /verify": Right(("recognise",), "verify"),
    "POST /embeddings": Right(("embed",)),
    "POST /expression": Right(("expression",)),
    "POST /attributes": Right(("expression",)),
    # The features' own, once they are known; in the log where identity is among them.
    "POST /analyze": Right(("recognise", "embed", "expression"), "analyze"),
    "POST /enroll": _changes("enrol", "enroll"),
    "GET /galleries": Right(_WHO_SEES_GALLERIES),
    "POST /galleries": _changes("administer", "gallery.create"),
    f"GET {_GALLERY}": Right(_WHO_SEES_GALLERIES),
    f"PATCH {_GALLERY}": _changes("administer", "gallery.change"),
    f"DELETE {_GALLERY}": _changes("administer", "gallery.delete"),
    f"GET {_GALLERY}/persons": Right(_WHO_SEES_PEOPLE),
    f"POST {_GALLERY}/persons": _changes("enrol", "person.create"),
    f"GET {_PERSON}": Right(_WHO_SEES_PEOPLE),
    f"PATCH {_PERSON}": _changes("enrol", "person.change"),
    f"DELETE {_PERSON}": _changes("administer", "person.erase"),
    f"GET {_PERSON}/export": Right(("administer",), "person.export"),
    f"GET {_GALLERY}/receipts/{{receipt}}": Right(("administer",)),
    f"GET {_PERSON}/faces": Right(_WHO_SEES_PEOPLE),
    f"GET {_FACE}": Right(_WHO_SEES_PEOPLE),
    f"DELETE {_FACE}": _changes("administer", "face.erase"),
}
FEATURES: Final[Mapping[str, str]] = {
    "expression": "expression",
    "attributes": "expression",
    "quality": "recognise",
    "identity": "recognise",
    "embedding": "embed",
}


@dataclass(frozen=True)
class Asked:
    """What a path asks for. route: the template that it fits, "" where there is none; rights: of
    every line of the table that it fits, the most literal line first, whose parameters these are.
    """

    route: str
    rights: tuple[Right, ...]
    parameters: Mapping[str, str]

    @property
    def open(self) -> bool:
        """Whether no key is asked for."""
        return all(right.scopes is None for right in self.rights)


def asked_of(method: str, path: str) -> Asked:
    """What a key must have for this; of a path or method that is none, any key will do: who shows
    it learns what there is not."""
    fitting = [
        (route, right, found.groupdict())
        for route, pattern, right in _PATTERNS.get(method, ())
        if (found := pattern.match(path))
    ]
    if not fitting:
        return Asked("", (ANY_KEY,), {})
    fitting.sort(key=lambda one: len(one[2]))
    route, _, parameters = fitting[0]
    return Asked(route, tuple(right for _, right, _ in fitting), parameters)


def methods_of(path: str) -> list[str]:
    """The methods that a path is answered by: HEAD too, if GET is."""
    methods = {
        method
        for method, lines in _PATTERNS.items()
        if any(pattern.match(path) for _, pattern, _ in lines)
    }
    return sorted(methods | ({"HEAD"} if "GET" in methods else set()))


def _patterns(rights: Mapping[str, Right]) -> dict[str, list[tuple[str, re.Pattern[str], Right]]]:
    """The table by method, its paths as the router itself reads them."""
    by_method: dict[str, list[tuple[str, re.Pattern[str], Right]]] = {}
    for call, right in rights.items():
        method, route = call.split(" ")
        by_method.setdefault(method, []).append((route, compile_path(route)[0], right))
    return by_method


_PATTERNS: Final = _patterns(RIGHTS)
