"""What every request passes: the host it names, its origin, its token; and every answer.

A page of any web site may send requests to a server on this machine. What it reads is kept from it
by the browser, unless the site's name is made to point to this machine (DNS rebinding). So without
a token, a server that listens to this machine alone answers only to this machine's names, and no
server answers a POST of another site's page. With a token neither is looked at: a foreign page
does not know it, and a proxy may change the host.

Every answer gets headers that keep a browser from loading anything from elsewhere, every error is
JSON, and a bug is an error too, logged with its traceback.
"""

import hmac
import logging
import time
from collections.abc import MutableMapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from kerasft.serving.meters import Meters

log = logging.getLogger("kerasft")

OPEN = (
    "/",
    "/healthz",
    "/v2/health/live",
    "/v2/health/ready",
    "/page/page.css",
    "/page/page.js",
)
"""Paths that need no token: nothing of the model is in them."""

HEADERS = {
    "content-security-policy": "default-src 'self'; img-src 'self' blob: data:; "
    "object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}


class Guard:
    """The application between uvicorn and the routes."""

    def __init__(self, app: ASGIApp, *, names: Sequence[str], token: str, meters: Meters) -> None:
        """Makes it.

        Args:
            app: the routes.
            names: names and addresses that a request may call the server; () for any.
            token: token that requests must bring; "" asks for none.
            meters: the figures.
        """
        self._app = app
        self._names = names
        self._token = token.encode()
        self._meters = meters

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start = time.perf_counter()
        status = 0

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message = _with_headers(message)
            await send(message)

        try:
            refusal = self._refusal(scope)
            await (refusal or self._app)(scope, receive, send_with_headers)
        except Exception:
            log.exception("a request failed")
            if not status:
                failed = error(500, "The server made a mistake; its log has more.")
                await failed(scope, receive, send_with_headers)
        finally:
            asked = scope.get("asked", "other")
            self._meters.request(asked, status or 499, time.perf_counter() - start)

    def _refusal(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if not self._token and self._names and host and _name_of(host) not in self._names:
            return error(
                403,
                f"This server answers to {', '.join(self._names)}, and the request is for another "
                "host. Behind a proxy, let it pass one of these on, or use a token.",
            )
        origin = headers.get("origin", "")
        if not self._token and scope["method"] == "POST" and origin and _place_of(origin) != host:
            passed = ", or let it pass the host on (nginx: proxy_set_header Host $http_host;)"
            return error(
                403,
                "A page of another site may not use this server. If it is this server's own page "
                f"behind a proxy, use a token{'' if self._names else passed}.",
            )
        if self._token and scope["path"] not in OPEN:
            scheme, _, given = headers.get("authorization", "").partition(" ")
            right = hmac.compare_digest(given.strip().encode(), self._token)
            if scheme.lower() != "bearer" or not right:
                what = "is not the right one" if given else "is missing"
                return error(
                    401,
                    f'The token {what}. Send it as a header, "Authorization: Bearer TOKEN".',
                    {"WWW-Authenticate": "Bearer"},
                )
        return None


def _name_of(host: str) -> str:
    """Returns a Host header without its port and brackets, in lower case."""
    try:
        return (urlsplit(f"//{host}").hostname or "").rstrip(".")
    except ValueError:
        return ""


def _place_of(origin: str) -> str:
    """Returns the host and port of an Origin header."""
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return ""


def _with_headers(message: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    there = {name for name, _ in message.get("headers", [])}
    more = [(k.encode(), v.encode()) for k, v in HEADERS.items() if k.encode() not in there]
    return {**message, "headers": [*message.get("headers", []), *more]}


def error(status: int, text: str, headers: dict[str, str] | None = None) -> Response:
    """Makes the answer of a request that fails: JSON with a sentence."""
    return JSONResponse({"error": text}, status, headers)


async def http_error(request: Request, problem: Exception) -> Response:
    """Answers an HTTPException of a route."""
    status = getattr(problem, "status_code", 500)
    text, headers = getattr(problem, "detail", ""), getattr(problem, "headers", None)
    if status == 404 and text == "Not Found":
        text = "There is nothing at this address. /openapi.json lists what there is."
    if status == 405 and text == "Method Not Allowed":
        text = f"{request.method} is not possible here."
    return error(status, text, dict(headers or {}))
