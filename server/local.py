"""Without tokens the service is for this machine only, whatever it was told to listen on."""

from __future__ import annotations

import ipaddress

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from server.errors import ApiError
from server.origin import foreign, is_foreign


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

    Refuses clients of other machines, requests that a foreign page sent here by a name of its own (DNS rebinding), and
    changes that a foreign page makes the browser of this machine send (CSRF).
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal = _refusal(scope) if scope["type"] == "http" and not scope["app"].state.backend.tokens else None
        if refusal is not None:
            await refusal.response()(scope, receive, send)
        else:
            await self.app(scope, receive, send)


def _refusal(scope: Scope) -> ApiError | None:
    if not _is_local(scope):
        message = (
            "Without tokens this server answers this machine only, under the names localhost and 127.0.0.1. "
            "Set API_TOKENS or API_TOKENS_FILE to serve others."
        )
        return ApiError(403, "local_only", message)
    return foreign() if is_foreign(scope["method"], Headers(scope=scope)) else None


def _is_local(scope: Scope) -> bool:
    client = scope.get("client")
    if client is not None and not is_loopback(client[0]):
        return False
    return is_loopback(_hostname(Headers(scope=scope).get("host", "localhost")))


def _hostname(header: str) -> str:
    if header.startswith("["):
        return header[1:].partition("]")[0]
    return header.partition(":")[0]
