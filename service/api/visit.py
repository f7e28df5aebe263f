"""A request that was let in: by which key, to do what, and what the audit log will say of it.

What a request asks for is not all in its path: its gallery and its features stand among its fields.
So whoever reads fields has them admitted (`admit_fields`), before anything is done with them.
Without keys there is no visit, and all of this does nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from fastapi import Request

from service.api.problems import shown
from service.api.rights import FEATURES, Right
from service.errors import GalleryForbidden, ScopeMissing
from service.guard.keys import Key

_NOTED: Final = ("calibration", "person_id")


@dataclass
class Visit:
    """key: None where the service has none. act: as what the audit log will have it, None: it will
    not; what: what it will say, ids and counts."""

    actor: str
    key: Key | None
    act: str | None = None
    changes: bool = False
    what: dict[str, Any] = field(default_factory=dict)

    def require(self, right: Right) -> None:
        """Raises ScopeMissing where the key has not what a call asks for."""
        if self.key is None or not right.scopes:
            return
        if not set(right.scopes) & set(self.key.scopes):
            raise ScopeMissing(" or ".join(right.scopes))

    def enter(self, gallery: str) -> None:
        """Raises GalleryForbidden where the key is not for that gallery, be it there or not."""
        self.what["gallery"] = gallery = str(shown(gallery))
        if self.key is not None and not self.key.may_enter(gallery):
            raise GalleryForbidden(gallery)


def visit_of(request: Request) -> Visit | None:
    """The visit that the request is, None where nobody is asked for a key and nothing recorded."""
    visit: Visit | None = getattr(request.state, "visit", None)
    return visit


def key_of(request: Request) -> str | None:
    """The name of the key that makes the request; None where callers need none."""
    visit = visit_of(request)
    return None if visit is None or visit.key is None else visit.key.name


def caller_of(request: Request) -> tuple[str, str]:
    """The caller by whom limits are shared: the key, or the address without one."""
    if (key := key_of(request)) is not None:
        return "key", key
    return "address", request.client.host if request.client else ""


def admit_fields(request: Request, fields: object) -> None:
    """Nothing, when the key is good for what a call's fields name. Raises ScopeMissing,
    GalleryForbidden."""
    visit = visit_of(request)
    if visit is None:
        return
    features = getattr(fields, "features", None)
    if features is not None:
        for feature in features:
            visit.require(Right((FEATURES[feature],)))
        if "identity" not in features:
            visit.act = None
    gallery = getattr(fields, "gallery", None)
    if gallery is not None and (features is None or "identity" in features):
        visit.enter(gallery)
    for name in _NOTED:
        if (value := getattr(fields, name, None)) is not None:
            visit.what[name] = shown(value)


def admit_gallery(request: Request, gallery: str) -> None:
    """Nothing, when the key is good for the gallery that a call makes. Raises GalleryForbidden."""
    visit = visit_of(request)
    if visit is not None:
        visit.enter(gallery)


def note(request: Request, **what: Any) -> None:
    """Has the audit log say this of the request: ids and counts, never a name of a person."""
    visit = visit_of(request)
    if visit is not None:
        visit.what.update(what)


def may(request: Request, scope: str) -> bool:
    """True if the caller's key has the scope; whoever needs no key may do all."""
    visit = visit_of(request)
    return visit is None or visit.key is None or scope in visit.key.scopes


def galleries_seen(request: Request) -> Sequence[str] | None:
    """The only galleries that the key may know of; None: all."""
    visit = visit_of(request)
    return None if visit is None or visit.key is None else visit.key.galleries
