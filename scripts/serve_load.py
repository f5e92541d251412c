"""A server in a process of its own, and connections that cost their side little.

    with serving(Path("runs/photos/export")) as server:
        connection = await Connection.open(server)
        status, body = await connection.ask(server.post(b'{"instances": [...]}'))

The server listens on 127.0.0.1 alone, on a free port, and ends with the block.
"""

import asyncio
import base64
import contextlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HOST = "127.0.0.1"


@dataclass(frozen=True)
class Server:
    """A server that listens.

    Attributes:
        port: port that it listens on.
        name: name of its model.
        token: token that it asks for; "" if it asks for none.
        process: process that it is.
        log: file with what it writes to stderr.
    """

    port: int
    name: str
    token: str
    process: subprocess.Popen
    log: Path

    def request(self, method: str, path: str, body: bytes = b"", **more: str) -> bytes:
        """Writes a request; further headers replace those that are there."""
        headers = {"Host": f"{HOST}:{self.port}", "Content-Length": str(len(body))}
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        headers |= {name.replace("_", "-"): value for name, value in more.items()}
        lines = [f"{method} {path} HTTP/1.1", *(f"{k}: {v}" for k, v in headers.items()), "", ""]
        return "\r\n".join(lines).encode() + body

    def post(self, body: bytes, **more: str) -> bytes:
        """Writes a request to predict."""
        return self.request("POST", f"/v1/models/{self.name}:predict", body, **more)


class Connection:
    """A connection that is kept for many requests, one after the other."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, server: Server) -> "Connection":
        """Connects to a server."""
        return cls(*await asyncio.open_connection(HOST, server.port))

    def close(self) -> None:
        """Closes the connection, at once."""
        self._writer.close()

    async def send(self, *parts: bytes) -> None:
        """Sends the parts of a request."""
        for part in parts:
            self._writer.write(part)
            await self._writer.drain()

    async def ask(self, *parts: bytes) -> tuple[int, bytes]:
        """Sends the parts of a request; returns status and body of the answer.

        Raises:
            OSError: the connection was lost.
            EOFError: the server closed it without a whole answer.
        """
        with contextlib.suppress(ConnectionError):  # the answer may be there nevertheless
            await self.send(*parts)
        head = await self._reader.readuntil(b"\r\n\r\n")
        status = int(head[9:12])
        _, _, after = head.lower().partition(b"content-length:")
        return status, await self._reader.readexactly(int(after.partition(b"\r\n")[0]))


async def figures(server: Server, connection: Connection) -> Mapping[str, float]:
    """Reads /metrics of a server."""
    _, body = await connection.ask(server.request("GET", "/metrics"))
    lines = [line.rpartition(" ") for line in body.decode().splitlines() if line[0] != "#"]
    return {name: float(value) for name, _, value in lines}


def rows_of(files: Sequence[bytes], **more: Any) -> bytes:
    """Writes the body of a request in the row form, the files in base64."""
    items = [{"b64": base64.b64encode(one).decode()} for one in files]
    return json.dumps({"instances": items, **more}).encode()


@contextlib.contextmanager
def serving(target: Path, *, token: str = "", **limits: float) -> Iterator[Server]:
    """Serves a run or an export until the block ends.

    Args:
        target: run or export.
        token: token that the server asks for; "" for none.
        limits: limits that differ from the usual ones, by name.
    """
    with tempfile.TemporaryDirectory(prefix="serve-load-") as folder:
        log, token_file = Path(folder) / "log", Path(folder) / "token"
        token_file.touch(0o600)
        token_file.write_text(token)
        asked: dict[str, Any] = {"target": str(target), "limits": limits}
        asked["token_file"] = str(token_file) if token else None
        words = [sys.executable, __file__, json.dumps(asked)]
        with log.open("wb") as stderr:
            process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=stderr, text=True)
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            if not line:
                raise SystemExit(f"The server did not start:\n{log.read_text('utf-8')}")
            said = json.loads(line)
            yield Server(said["port"], said["name"], token, process, log)
        finally:
            process.terminate()
            process.wait(30)


def main() -> None:
    """Serves what the only argument says, as JSON, and tells where."""
    asked = json.loads(sys.argv[1])
    from kerasft.serving.limits import Limits
    from kerasft.serving.serve import Started, serve_model

    def tell(started: Started, _stop: Callable[[], None]) -> None:
        port = int(started.url.rpartition(":")[2])
        print(json.dumps({"port": port, "name": started.name}), flush=True)

    serve_model(
        asked["target"],
        host=HOST,
        port=0,
        token_file=asked["token_file"],
        limits=Limits(**asked["limits"]),
        started=tell,
    )


if __name__ == "__main__":
    main()
