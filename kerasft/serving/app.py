"""The routes for programs: TensorFlow Serving's REST API, `/healthz`, `/metrics`, `/openapi.json`.

The server tells what it serves with `Serving`, which all routes share.
"""

import asyncio
import functools
import json
import queue
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib import resources
from typing import Any, TypeVar

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from kerasft.serving import meters, rest
from kerasft.serving.batching import Batcher, Compute, Row
from kerasft.serving.guard import Guard, http_error
from kerasft.serving.limits import Bodies, Limits
from kerasft.serving.signatures import ERROR
from kerasft.serving.versions import Version, Versions

_T = TypeVar("_T")


@dataclass(frozen=True, eq=False)
class Serving:
    """What is served, and by which means.

    Attributes:
        name: name of the model.
        versions: its versions.
        batcher: the images that wait.
        bodies: the bodies that are in memory.
        limits: the limits.
        meters: the figures.
        reader: thread that reads and writes JSON, one request after the other, so that their
            memory does not add up.
        converter: thread that converts photos, such as HEIC ones, which may take seconds.
    """

    name: str
    versions: Versions
    batcher: Batcher
    bodies: Bodies
    limits: Limits
    meters: meters.Meters
    reader: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(1, "kerasft-json")
    )
    converter: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(1, "kerasft-convert")
    )

    def require_working(self) -> None:
        """Raises an HTTPException, 503, if nothing is computed any more."""
        if not self.batcher.works:
            raise HTTPException(503, "The thread that computes has ended. Start the server again.")

    def require_name(self, name: str) -> None:
        """Raises an HTTPException, 404, if the model is called differently."""
        if name != self.name:
            raise HTTPException(
                404,
                f"There is no model '{name[:100]}' here. The one that is served is called "
                f"'{self.name}'.",
            )

    def version(self, number: int | None) -> Version:
        """Returns a version by its number, the served one for None.

        Raises:
            HTTPException: 404, it is not loaded.
        """
        version = self.versions.find(number)
        if version is None:
            raise self.no_version(str(number))
        return version

    def no_version(self, number: str) -> HTTPException:
        """Returns the error for a version that is not there."""
        return HTTPException(
            404,
            f"Version {number[:100]} of '{self.name}' is not served. The one that is served is "
            f"{self.versions.served.number}.",
        )

    async def in_reader(self, function: Callable[..., _T], *arguments: Any) -> _T:
        """Calls a function in the thread that reads."""
        call = functools.partial(function, *arguments)
        return await asyncio.get_running_loop().run_in_executor(self.reader, call)

    async def compute(
        self, request: Request, compute: Compute, items: Sequence[tuple[Any, int]]
    ) -> Sequence[Row]:
        """Computes the rows of some images; gives up when the client has gone.

        Args:
            request: the request that they are of, whose body has been read.
            compute: function that computes them.
            items: what is computed, each with its number of pixels.

        Raises:
            HTTPException: 503 too many images wait, 504 it took too long.
        """
        if not items:
            return []
        work = asyncio.ensure_future(
            self.batcher.submit(compute, items, self.limits.seconds_to_answer)
        )
        gone = asyncio.ensure_future(_gone(request))
        try:
            await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                raise HTTPException(400, "The client went away.")
            rows = work.result()
        except queue.Full:
            raise HTTPException(
                503,
                f"{self.limits.queue:,} images may wait, and these would be more. Try again.",
                {"Retry-After": str(self.batcher.seconds_to_wait())},
            ) from None
        except TimeoutError:
            raise HTTPException(
                504, f"There was no answer within {self.limits.seconds_to_answer:g} seconds."
            ) from None
        finally:
            work.cancel()
            gone.cancel()
        bad = sum(bool(row.get(ERROR)) for row in rows)
        self.meters.images(len(rows) - bad, bad)
        return rows

    async def rows(
        self, request: Request, compute: Compute, items: Sequence[tuple[Any, int] | Row]
    ) -> list[Row]:
        """Computes as `compute` does, but keeps the rows of items that were wrong when read."""
        right = [item for item in items if isinstance(item, tuple)]
        computed = iter(await self.compute(request, compute, right))
        self.meters.images(0, len(items) - len(right))
        return [next(computed) if isinstance(item, tuple) else item for item in items]


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def make_app(
    serving: Serving, *, names: Sequence[str], token: str, more_routes: Sequence[Route] = ()
) -> ASGIApp:
    """Makes the application.

    Args:
        serving: what is served.
        names: names and addresses that a request may call the server; () for any.
        token: token that requests must bring; "" asks for none.
        more_routes: routes of the page and of the other protocol.
    """
    routes = [
        Route("/healthz", functools.partial(_health, serving), name="health"),
        Route("/metrics", functools.partial(_figures, serving), name="metrics"),
        Route("/openapi.json", functools.partial(_description, serving), name="openapi"),
        Route("/v1/models/{rest:path}", _Models(serving), name="models"),
        *more_routes,
    ]
    handlers: Any = {HTTPException: http_error}
    app = Starlette(routes=routes, exception_handlers=handlers)
    app.router.redirect_slashes = False
    return Guard(app, names=names, token=token, meters=serving.meters)


async def _health(serving: Serving, request: Request) -> Response:
    request.scope["asked"] = "health"
    serving.require_working()
    return JSONResponse({"status": "ok", "version": serving.versions.served.number})


async def _figures(serving: Serving, request: Request) -> Response:
    request.scope["asked"] = "metrics"
    serving.meters.version.set(serving.versions.served.number)
    return Response(serving.meters.to_text(), media_type=meters.CONTENT_TYPE)


async def _description(serving: Serving, request: Request) -> Response:
    request.scope["asked"] = "openapi"
    return JSONResponse(description(serving.name))


def description(name: str) -> Any:
    """Returns the description of all routes, by OpenAPI 3.1, for a model of this name."""
    text = (resources.files("kerasft.serving") / "assets" / "openapi.json").read_text("utf-8")
    return json.loads(text.replace("{NAME}", name))


# The same as TensorFlow Serving's, in util/net_http and http_rest_api_handler.cc.
_PATH = re.compile(
    r"(?P<name>[^/:]+)"
    r"(?:/versions/(?P<version>\d{1,18})|/labels/(?P<label>[^/:]+))?"
    r"(?P<ending>/metadata|:predict|:classify|:regress)?"
)


class _Models:
    """The routes below /v1/models/."""

    def __init__(self, serving: Serving) -> None:
        self._serving = serving

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        request = Request(scope, receive, send)
        response = await self._answer(request)
        await response(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        found = _PATH.fullmatch(request.path_params["rest"])
        if found is None:
            raise HTTPException(404)
        ending = found["ending"] or ""
        request.scope["asked"] = ending.strip("/:") or "state"
        allowed = ("POST",) if ending.startswith(":") else ("GET", "HEAD")
        if request.method not in allowed:
            raise HTTPException(
                405,
                f"{request.method} is not possible here, only {allowed[0]}.",
                {"Allow": ", ".join(allowed)},
            )
        self._serving.require_name(found["name"])
        if found["label"]:
            raise HTTPException(
                400,
                f"Unrecognized servable version label: {found['label'][:100]}. Versions have no "
                "labels here; leave it out for the newest one.",
            )
        number = int(found["version"]) if found["version"] else None
        if not ending:
            return self._state(number)
        version = self._serving.version(number)
        if ending == "/metadata":
            return JSONResponse(rest.metadata(self._serving.name, version))
        if ending != ":predict":
            raise HTTPException(
                400, f"The model has no signature for {ending[1:]}. Only :predict is possible."
            )
        return await self._predict(request, version)

    def _state(self, number: int | None) -> Response:
        found = self._serving.versions.states()
        if number is not None and number not in found:
            raise self._serving.no_version(str(number))
        some = found if number is None else {number: found[number]}
        return JSONResponse(rest.states(some))

    async def _predict(self, request: Request, version: Version) -> Response:
        serving = self._serving
        async with serving.bodies.read(request) as body:
            asked = await serving.in_reader(
                rest.read, body, version.model.signatures, serving.limits
            )
            rows = await serving.rows(request, asked.signature.compute, asked.items)
            return Response(
                await serving.in_reader(rest.answer, asked, rows), media_type="application/json"
            )
