"""Without tokens the service is for this machine only, whatever it was told to listen on."""

from __future__ import annotations

import ipaddress

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from server.errors import ApiError


def is_loopback(host: str) -> bool:
    """Whether ``host`` (a name or an address) is this machine, seen from itself."""
    if host.lower() == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback


class LocalOnly:
    """ASGI middleware of an application whose backend has no tokens.

    Refuses clients of other machines, and requests that a foreign page sent here by a name of its own (DNS rebinding).
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not scope["app"].state.backend.tokens and not _is_local(scope):
            message = (
                "Without tokens this server answers this machine only, under the names localhost and 127.0.0.1. "
                "Set API_TOKENS or API_TOKENS_FILE to serve others."
            )
            await ApiError(403, "local_only", message).response()(scope, receive, send)
        else:
            await self.app(scope, receive, send)


def _is_local(scope: Scope) -> bool:
    client = scope.get("client")
    if client is not None and not is_loopback(client[0]):
        return False
    return is_loopback(_hostname(Headers(scope=scope).get("host", "localhost")))


def _hostname(header: str) -> str:
    if header.startswith("["):
        return header[1:].partition("]")[0]
    return header.partition(":")[0]
