"""Limits of the server, and the bodies of requests, read within them.

A body is read as a stream: what is too large is refused as soon as that shows, so it is never in
memory. uvicorn then reads on and throws away what the client still sends, because a client that
sends has no eye for an answer.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request

from kerasft.input_rule import MAX_PIXELS
from kerasft.text import size_text


@dataclass(frozen=True)
class Limits:
    """What the server takes.

    Attributes:
        body: bytes of a request's body.
        bodies: bytes of all bodies that are being read or wait for their answer.
        instances: images in a request.
        batch: images that are computed together.
        pixels: pixels of all images of a batch, by their headers; a single image may have as many.
        queue: images that wait.
        connections: open connections.
        seconds_to_send: time that a client has for the head of a request, for its body, and to read
            on where it has stopped to read an answer.
        seconds_to_answer: time after which a request that waits is given up.
        seconds_between_looks: time after which the folder of versions is looked at again.
    """

    body: int = 32 * 10**6
    bodies: int = 256 * 10**6
    instances: int = 256
    batch: int = 32
    pixels: int = MAX_PIXELS
    queue: int = 1024
    connections: int = 512
    seconds_to_send: float = 30
    seconds_to_answer: float = 60
    seconds_between_looks: float = 2


class Bodies:
    """The bodies that are in memory."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._held = 0

    @contextlib.asynccontextmanager
    async def read(self, request: Request) -> AsyncIterator[bytes]:
        """Reads the body of a request; it counts as held until the block ends.

        Raises:
            HTTPException: 413 too large, 415 compressed, 408 too slow, 503 too many at once.
        """
        if request.headers.get("content-encoding", "identity") != "identity":
            raise HTTPException(415, "The body is compressed. Send it as it is.")
        self._refuse_large(int(request.headers.get("content-length", 0)))
        held = 0
        parts: list[bytes] = []
        try:
            async with asyncio.timeout(self._limits.seconds_to_send):
                async for part in request.stream():
                    held += len(part)
                    self._held += len(part)
                    parts.append(part)
                    self._refuse_large(held)
                    if self._held > self._limits.bodies:
                        raise HTTPException(
                            503,
                            "The server holds as many requests as fit into its memory. Try again.",
                            {"Retry-After": "1"},
                        )
            body = b"".join(parts)
            parts.clear()
            yield body
        except TimeoutError:
            raise HTTPException(
                408,
                f"The request took longer than {self._limits.seconds_to_send:g} seconds to arrive.",
                {"Connection": "close"},
            ) from None
        except ClientDisconnect:
            raise HTTPException(400, "The client went away.") from None
        finally:
            self._held -= held

    def _refuse_large(self, size: int) -> None:
        if size > self._limits.body:
            raise HTTPException(
                413,
                f"The body is larger than {size_text(self._limits.body)}. "
                "Send fewer or smaller images in a request.",
            )
