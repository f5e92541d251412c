"""Connections: clients that are slow, too many of them, and the end of the server.

uvicorn has no limit for the time in which the head of a request must arrive, nor for what a client
goes on to send after its answer, nor for answers that it does not read. Such connections are given
up here.
"""

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from kerasft.serving.limits import Limits


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

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        with super().capture_signals():
            yield
            self._captured_signals.clear()  # uvicorn would raise them again
