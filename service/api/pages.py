"""What web pages of other sites may ask of a service without keys: nothing.

A browser on this machine sends to 127.0.0.1 whatever any page has it send, and a page whose own
name is made to point there reads the answers too ("DNS rebinding"). What gives both away is in the
headers that the browser alone writes: `Host` is the name that the page has called (RFC 9110, 7.2),
`Origin` the site that the page comes from (RFC 6454, 7).
"""

import ipaddress
from collections.abc import Collection
from urllib.parse import urlsplit

from fastapi import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from service.api.problems import error_response
from service.errors import HostUnknown, MienError, OriginForeign


class OwnPages:
    """Answers requests by this machine's own names, or by one of `hosts` (a port with it is not
    looked at), and those of pages of this service; refuses the others before anything is read."""

    def __init__(self, app: ASGIApp, *, hosts: Collection[str]) -> None:
        self.app = app
        self._hosts = {name.lower() for name in hosts} | {name_of(name) for name in hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            request = Request(scope)
            try:
                self._admit(request.headers.get("host", ""), request.headers.get("origin"))
            except MienError as error:
                await error_response(error, request)(scope, receive, send)
                return
        await self.app(scope, receive, send)

    def _admit(self, host: str, origin: str | None) -> None:
        """Raises HostUnknown, OriginForeign. A request without Host is of no browser."""
        name = name_of(host)
        if host and not is_this_machine(name) and name not in self._hosts:
            raise HostUnknown(host)
        if origin is not None and _site_of(origin) != host.lower():
            raise OriginForeign(origin)


def _site_of(origin: str) -> str | None:
    """The `name:port` of an origin, in lower case; None of one that is none."""
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return None


def name_of(host: str) -> str:
    """The name of a `name:port`, in lower case, an IPv6 address without its brackets."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def is_this_machine(name: str) -> bool:
    """Whether it is a name or an address of the loopback."""
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name == "localhost"
