"""The page for people: `/`, its files, and what it asks for.

The page is made of the files in `assets/`: page.html at `/`, page.css at `/page/page.css`,
page.js at `/page/page.js`. A browser runs and loads nothing else (Content-Security-Policy): no
`style=` attributes, no inline scripts, images from `blob:` and `data:` addresses.

    GET /page/about
        {"name": "flowers", "version": 3, "format": "SavedModel", "classes": ["daisy", ...],
         "threshold": 0.62 or null, "explains": true, "image_size": 224,
         "largest_file": 32000000}
        threshold: the score below which the model does not know; null if it always answers or
        the export does not say. explains: whether /page/explain has pictures.
    POST /page/predict?labels=all, the body is an image file of any kind that kerasft reads
        {"labels": [{"label": "daisy", "score": 0.93}, ...], "abstain": false, "novel": false,
         "error": ""}
        labels: the best first, at most 5 unless `labels=all` asks for all. abstain: whether the
        score is below the threshold; null if there is none. novel: whether the photo is unlike
        the training photos; null if that is not known, or too many photos wait for it.
    POST /page/explain?label=daisy, the body is the same file; label may be left out
        a PNG, image/png: the photo as the model sees it, gray under the colours of its heat.
        404 with a sentence where the model has no pictures.

All errors are {"error": "a sentence"} with a status of 400 or more: 400 not an image, 413 too
large, 503 busy, and 401 where the server wants a token and the header "Authorization: Bearer
TOKEN" lacks it. The page itself is sent without a token; it asks for it when it gets 401.
"""

import asyncio
import functools
import logging
from collections.abc import Mapping
from importlib import resources
from typing import Any

import numpy as np
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from kerasft.errors import Unreadable, UserError
from kerasft.pixels.convert import as_readable
from kerasft.serving.app import Serving
from kerasft.serving.batching import Row
from kerasft.serving.insight import Insight
from kerasft.serving.rest import plain
from kerasft.serving.signatures import DEFAULT, ERROR, pixels_of

log = logging.getLogger("kerasft")

FILES = {"page.css": "text/css", "page.js": "text/javascript"}
MOST = 5
"""Largest number of labels for an image, unless all are asked for."""


def page_routes(serving: Serving, insight: Insight | None) -> list[Route]:
    """Makes the routes of the page.

    Args:
        serving: what is served.
        insight: what model.keras knows; None for an export, whose model.keras is elsewhere.
    """
    page = _Page(serving, insight)
    files = [
        Route(f"/page/{name}", functools.partial(_file, _read(name), kind), name=name)
        for name, kind in FILES.items()
    ]
    return [
        Route("/", functools.partial(_file, _read("page.html"), "text/html"), name="page"),
        *files,
        Route("/page/about", page.about, name="about"),
        Route("/page/predict", page.predict, methods=["POST"], name="page-predict"),
        Route("/page/explain", page.explain, methods=["POST"], name="page-explain"),
    ]


def _read(name: str) -> bytes:
    # Read once, by fixed names: no request ever opens a file.
    return (resources.files("kerasft.serving") / "assets" / name).read_bytes()


async def _file(content: bytes, kind: str, request: Request) -> Response:
    request.scope["asked"] = "page"
    return Response(content, media_type=kind)


class _Page:
    """What the page asks for."""

    def __init__(self, serving: Serving, insight: Insight | None) -> None:
        self._serving = serving
        self._insight = insight

    async def about(self, request: Request) -> Response:
        """Describes the model."""
        request.scope["asked"] = "page"
        version = self._serving.versions.served
        model = version.model
        return JSONResponse(
            {
                "name": self._serving.name,
                "version": version.number,
                "format": model.format,
                "classes": list(model.class_names),
                "threshold": model.threshold,
                "explains": self._insight is not None and self._insight.explains,
                "image_size": model.signatures[DEFAULT].side,
                "largest_file": self._serving.limits.body,
            }
        )

    async def predict(self, request: Request) -> Response:
        """Answers with the labels of an image."""
        request.scope["asked"] = "page-predict"
        serving, model = self._serving, self._serving.versions.served.model
        async with serving.bodies.read(request) as body:
            encoded = await self._readable(body)
            items = [(encoded, pixels_of(encoded))]
            [row] = await serving.compute(request, model.signatures[DEFAULT].compute, items)
            if row.get(ERROR):
                raise HTTPException(400, row[ERROR])
            novel = await self._novel(encoded)
        most = None if request.query_params.get("labels") == "all" else MOST
        return JSONResponse({**_labels(row, most), "novel": novel, "error": ""})

    async def _novel(self, encoded: bytes) -> bool | None:
        try:
            return await self._insight.novel(encoded) if self._insight else None
        except (UserError, HTTPException) as error:
            # A damaged file of the run, or too many wait: the export has answered nevertheless.
            said = error.detail if isinstance(error, HTTPException) else error
            log.warning("It is not known whether a photo is unlike the training photos: %s", said)
            return None

    async def explain(self, request: Request) -> Response:
        """Answers with the heat map of an image."""
        request.scope["asked"] = "page-explain"
        if self._insight is None:
            raise HTTPException(
                404,
                "An export has no gradients, so there is no heat map. Serve the run instead: its "
                "model.keras has them.",
            )
        label = request.query_params.get("label")
        digest = self._serving.versions.served.model.model_digest
        if not digest:
            raise HTTPException(
                404,
                "This version does not say of which model.keras it was made, so the heat map could "
                "be of another model. `kerasft export` makes a version that says so.",
            )
        async with self._serving.bodies.read(request) as body:
            encoded = await self._readable(body)
            try:
                picture = await self._insight.explain(encoded, label, digest)
            except UserError as error:
                raise HTTPException(404, str(error)) from None
        return Response(picture, media_type="image/png")

    async def _readable(self, body: bytes) -> bytes:
        if not body:
            raise HTTPException(400, "The file is empty.")
        try:
            # The photo is a visitor's: it must not stay in the cache.
            call = functools.partial(as_readable, body, keep=False)
            converter = self._serving.converter
            return await asyncio.get_running_loop().run_in_executor(converter, call)
        except Unreadable as error:
            raise HTTPException(400, f"The file {error}.") from None


def _labels(row: Row, most: int | None) -> Mapping[str, Any]:
    scores = np.asarray(row["scores"])
    ranks = np.asarray(row.get("logits", scores))
    best = np.argsort(-ranks, kind="stable")[:most]
    abstain = row.get("abstain")
    return {
        "labels": [{"label": row["labels"][k], "score": plain(scores[k])} for k in best],
        "abstain": None if abstain is None else bool(abstain),
    }
