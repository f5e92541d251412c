"""Limits of the server, and what is kept within them: the bodies of requests, and connections.

A body is read as a stream: what is too large is refused as soon as that shows, so it is never in
memory. uvicorn then reads on and throws away what the client still sends, because a client that
sends has no eye for an answer.

uvicorn has no limit for the time in which the head of a request must arrive, nor for what a client
goes on to send after its answer, nor for answers that it does not read. Such connections are given
up here.
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

import h11
import uvicorn
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from uvicorn.protocols.http.h11_impl import H11Protocol

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


def protocol_of(limits: Limits) -> type[asyncio.Protocol]:
    """Makes the class of uvicorn's connections, with these limits."""

    class Connection(H11Protocol):
        """A connection that must send a whole head, and read its answer, in time."""

        late: asyncio.TimerHandle | None = None
        unread: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            if len(self.connections) > limits.connections:
                self._refuse(503, "There are too many connections. Try again.")
            else:
                self._settle()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self._settle()

        def on_response_complete(self) -> None:
            super().on_response_complete()
            self._settle()

        def pause_writing(self) -> None:
            super().pause_writing()
            self.unread = self.loop.call_later(limits.seconds_to_send, self.transport.abort)

        def resume_writing(self) -> None:
            self._read()
            super().resume_writing()

        def connection_lost(self, exc: Exception | None) -> None:
            self._on_time()
            self._read()
            super().connection_lost(exc)

        def send_400_response(self, msg: str) -> None:
            self._refuse(400, "This is not an HTTP request.")

        def _settle(self) -> None:
            """Starts the clock while a head, or what nobody reads, is on its way; or stops it."""
            answering = self.cycle is not None and not self.cycle.response_complete
            paused = self.timeout_keep_alive_task is not None
            between = paused and self.conn.their_state is h11.IDLE
            if self.transport.is_closing() or answering or between:
                self._on_time()
            elif self.late is None:
                self.late = self.loop.call_later(limits.seconds_to_send, self._give_up)

        def _on_time(self) -> None:
            if self.late is not None:
                self.late.cancel()
                self.late = None

        def _read(self) -> None:
            if self.unread is not None:
                self.unread.cancel()
                self.unread = None

        def _give_up(self) -> None:
            if self.cycle is not None and self.conn.their_state is h11.SEND_BODY:
                self.transport.close()  # it has its answer
            else:
                self._refuse(408, f"No request came within {limits.seconds_to_send:g} seconds.")

        def _refuse(self, status: int, text: str) -> None:
            if self.transport.is_closing():
                return
            body = json.dumps({"error": text}).encode()
            reason = {400: "Bad Request", 408: "Request Timeout", 503: "Service Unavailable"}
            head = (
                f"HTTP/1.1 {status} {reason[status]}\r\ncontent-type: application/json\r\n"
                f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
            )
            self.transport.write(head.encode() + body)
            self.transport.close()

    return Connection


class Server(uvicorn.Server):
    """uvicorn's server, which ends without an exception when it is told to stop."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        with super().capture_signals():
            yield
            self._captured_signals.clear()  # uvicorn would raise them again
