"""Requests by the thousand, a tenth of them malformed: are all answers right, is memory flat?

    python scripts/soak_serve.py
    python scripts/soak_serve.py runs/flowers/export --data flowers5/ --requests 2000

Without an export a small one is made: weights of the sample, drawn photos. What the export says of
each photo is computed first, by `tf.saved_model.load` in a process of its own; then every answer of
the server is compared with that, and every answer to a malformed request with the status and the
sentence that stand in this file. Afterwards the server must still answer, and its log hold no
traceback. The exit code is 1 if anything was wrong.

The requests are sent by 16 clients, in an order that the seed decides. Memory is what is resident
while no request is under way.
"""

import argparse
import asyncio
import base64
import io
import json
import random
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench_serve import version_of
from bench_two_phase import PROGRAM
from serve_load import Connection, Server, figures, rows_of, serving

CLIENTS = 16
PARTS = 10
"""Number of parts after each of which memory is read."""
SECONDS_TO_SEND = 3.0
TOKEN = "soak-test-token"
TOLERANCE = 1e-4
"""Largest difference of a score or logit; other batches round differently."""
MB = 10**6

Row = Mapping[str, Any]
Check = Callable[[int, bytes], str]
"""A function from status and body of an answer to what is wrong with it, "" for nothing."""


@dataclass(frozen=True)
class Request:
    """A request of the soak.

    Attributes:
        kind: what it is: "one photo", "not base64".
        parts: what is sent.
        check: what the answer must be.
        alone: whether it has a connection of its own, because the server closes it.
        waits: whether the client waits for the answer.
    """

    kind: str
    parts: Sequence[bytes]
    check: Check
    alone: bool = False
    waits: bool = True


@dataclass
class Soaked:
    """What a soak showed.

    Attributes:
        kinds: number of requests of each kind.
        wrong: answers that were wrong, in words.
        resident: resident memory of the server in bytes, by the number of requests answered.
        seconds: time that it all took.
    """

    kinds: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    resident: dict[int, float] = field(default_factory=dict)
    seconds: float = 0.0

    def to_text(self) -> str:
        """Writes it as Markdown."""
        bad = sum(count for kind, count in self.kinds.items() if kind not in GOOD)
        lines = [
            f"{self.kinds.total():,} requests in {self.seconds:.0f} seconds, {bad:,} of them "
            f"malformed; wrong: {len(self.wrong)}.",
            *self.wrong[:20],
            "",
            "| requests | resident, MB |",
            "| --- | --- |",
            *(f"| {number:,} | {size / MB:.0f} |" for number, size in self.resident.items()),
            "",
            ", ".join(f"{kind} {count:,}" for kind, count in sorted(self.kinds.items())),
        ]
        return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("export", type=Path, nargs="?", help="export in the format SavedModel")
    parser.add_argument("--data", type=Path, help="photos that are sent")
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--known", action="store_true", help=argparse.SUPPRESS)
    typed = parser.parse_args()
    if typed.known:  # in a process of its own
        print(json.dumps(computed(version_of(typed.export), json.load(sys.stdin))))
        return
    if (typed.export is None) != (typed.data is None):
        parser.error("an export and --data go together")
    with tempfile.TemporaryDirectory(prefix="soak-serve-") as name:
        export, data = typed.export, typed.data
        if export is None:
            export, data = small_export(Path(name))
        done = soak(export, files_of(data), count=typed.requests, seed=typed.seed)
    print(done.to_text())
    sys.exit(bool(done.wrong))


def small_export(folder: Path) -> tuple[Path, Path]:
    """Trains a small run on drawn photos; returns its export and the photos."""
    from kerasft.sample.draw import draw_sample

    photos, run = folder / "photos", folder / "run"
    draw_sample(photos, seed=0, per_class=24)
    words = ["train", "--data", str(photos), "--run", str(run), "--epochs", "2"]
    for more in ([*words, "--weights", "sample"], ["export", str(run)]):
        subprocess.run([*PROGRAM, *more], check=True, capture_output=True)
    return run / "export", photos


def files_of(folder: Path, count: int = 64) -> list[bytes]:
    """Reads photos of a folder, spread evenly over it, and writes most of them in other formats."""
    from PIL import Image

    paths = sorted(path for path in folder.rglob("*.*") if path.is_file())
    files = []
    for i in range(min(count, len(paths))):
        encoded = paths[i * len(paths) // min(count, len(paths))].read_bytes()
        wanted = ("", "JPEG", "PNG", "WEBP")[i % 4]
        if wanted:
            buffer = io.BytesIO()
            Image.open(io.BytesIO(encoded)).convert("RGB").save(buffer, wanted)
            encoded = buffer.getvalue()
        files.append(encoded)
    return files


def known_answers(export: Path, files: Sequence[bytes]) -> list[Row]:
    """Returns what the export says of each file alone, without the server."""
    words = [sys.executable, __file__, str(export), "--known"]
    texts = json.dumps([base64.b64encode(one).decode() for one in files])
    done = subprocess.run(words, input=texts, stdout=subprocess.PIPE, text=True, check=True)
    rows: list[Row] = json.loads(done.stdout.splitlines()[-1])
    return rows


def computed(folder: Path, texts: Sequence[str]) -> list[Row]:
    """Scores files, given in base64, one by one."""
    import tensorflow as tf

    serve = tf.saved_model.load(str(folder)).signatures["serving_default"]
    rows: list[Row] = []
    for text in texts:
        given = serve(image_bytes=tf.constant([base64.b64decode(text)]))
        row = {name: given[name][0].numpy().tolist() for name in ("scores", "logits")}
        rows.append({**row, "top_label": given["top_label"][0].numpy().decode()})
    return rows


def soak(
    export: Path,
    files: Sequence[bytes],
    *,
    count: int,
    seed: int = 0,
    known: Sequence[Row] | None = None,
) -> Soaked:
    """Sends requests to a server of its own, and checks each answer.

    Args:
        export: export in the format SavedModel.
        files: image files that it can read.
        count: number of requests, a tenth of which is malformed.
        seed: seed of their order.
        known: what the export says of each file; None computes it.
    """
    known = known_answers(export, files) if known is None else known
    with serving(export, token=TOKEN, seconds_to_send=SECONDS_TO_SEND) as server:
        requests = planned(server, files, known, count, seed)
        done = asyncio.run(_send(server, requests))
        if server.process.poll() is not None:
            done.wrong.append(f"The server ended with exit code {server.process.returncode}.")
        log = server.log.read_text("utf-8")
        if "Traceback" in log:
            done.wrong.append(f"The log of the server has a traceback:\n{log[-2000:]}")
    return done


async def _send(server: Server, requests: Sequence[Request]) -> Soaked:
    done, start = Soaked(), time.perf_counter()
    size = max(1, len(requests) // PARTS)
    connections = [await Connection.open(server) for _ in range(CLIENTS)]
    for first in range(0, len(requests), size):
        part = iter(requests[first : first + size])
        await asyncio.gather(*(_client(server, one, part, done) for one in connections))
        now = await figures(server, connections[0])
        done.resident[done.kinds.total()] = now["process_resident_memory_bytes"]
    for connection in connections:
        connection.close()
    done.seconds = time.perf_counter() - start
    return done


async def _client(
    server: Server, kept: Connection, requests: Iterator[Request], done: Soaked
) -> None:
    """Sends the next request, until there is none."""
    for request in requests:
        problem = await _problem(server, kept, request)
        done.kinds[request.kind] += 1
        if problem:
            done.wrong.append(f"{request.kind}: {problem}")


async def _problem(server: Server, kept: Connection, request: Request) -> str:
    """Sends a request; returns what is wrong with its answer, "" for nothing."""
    try:
        connection = await Connection.open(server) if request.alone else kept
        try:
            async with asyncio.timeout(60):
                if not request.waits:
                    await connection.send(*request.parts)
                    return ""
                answer = await connection.ask(*request.parts)
        finally:
            if request.alone:
                connection.close()
    except (OSError, EOFError, TimeoutError) as error:
        return f"there was no answer ({error!r})"
    try:
        return request.check(*answer)
    except (ValueError, KeyError, TypeError) as error:
        return f"the answer is of another form ({error!r}): {answer}"


def planned(
    server: Server, files: Sequence[bytes], known: Sequence[Row], count: int, seed: int
) -> list[Request]:
    """Makes the requests, in the order in which they are sent."""
    draw = random.Random(seed)
    bad = malformed(server, files, known)
    requests = [bad[i % len(bad)] for i in range(count // 10)]
    while len(requests) < count:
        kind = draw.choice(list(GOOD))
        some = draw.sample(range(len(files)), GOOD[kind])
        requests.append(_good(server, kind, [files[i] for i in some], [known[i] for i in some]))
    draw.shuffle(requests)
    return requests


GOOD = {"one photo": 1, "four photos": 4, "columns": 3, "logits": 2}
"""Number of photos in each kind of request that is well-formed."""


def _good(server: Server, kind: str, files: Sequence[bytes], known: Sequence[Row]) -> Request:
    more = {"signature_name": "serve_logits"} if kind == "logits" else {}
    body = rows_of(files, **more)
    if kind == "columns":
        body = body.replace(b'"instances"', b'"inputs"', 1)

    def check(status: int, answer: bytes) -> str:
        said = json.loads(answer)
        if status != 200:
            return f"expected 200, got {status}: {said}"
        if kind == "columns":
            columns = said["outputs"]
            rows = [{name: columns[name][i] for name in columns} for i in range(len(files))]
        else:
            rows = said["predictions"]
        return different(rows, known)

    return Request(kind, [server.post(body)], check)


def different(rows: Sequence[Row], known: Sequence[Row]) -> str:
    """Compares rows of an answer with what is known; returns the first difference, "" for none."""
    if len(rows) != len(known):
        return f"expected {len(known)} rows, got {len(rows)}"
    for i, (row, right) in enumerate(zip(rows, known, strict=True)):
        if not {"logits"} <= set(row) or row.get("error"):
            return f"row {i}: expected a prediction, got {row}"
        for name in right.keys() & row.keys():
            if not _same(row[name], right[name]):
                return f"row {i}: expected {name} {right[name]}, got {row[name]}"
    return ""


def _same(got: Any, right: Any) -> bool:
    if isinstance(right, str):
        return bool(got == right)
    pairs = zip(got, right, strict=True)
    return all(abs(a - b) <= TOLERANCE * max(1, abs(b)) for a, b in pairs)


def refused(status: int, sentence: str) -> Check:
    """Makes the check of a request that is to be refused with a sentence, or the start of one."""

    def check(got: int, answer: bytes) -> str:
        try:
            said = json.loads(answer)["error"]
        except (ValueError, KeyError):
            said = repr(answer[:200])
        if got == status and said.startswith(sentence):
            return ""
        return f"expected {status} '{sentence}', got {got} '{said}'"

    return check


def bomb(side: int = 60_000) -> bytes:
    """Makes a PNG that claims many more pixels than there are bytes."""
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    )


def malformed(server: Server, files: Sequence[bytes], known: Sequence[Row]) -> list[Request]:
    """Makes a request of each malformed kind."""
    photo, right = files[0], known[0]
    path = f"/v1/models/{server.name}"
    one = rows_of([photo])
    item, image = "instances[0]: ", "The file is "
    no_image = f"{image}not a JPEG, PNG, GIF, BMP or WebP image."
    large = "The body is larger than 32.0 MB."

    def amid_good(status: int, answer: bytes) -> str:
        rows = json.loads(answer).get("predictions", [{}])
        if status != 200 or len(rows) != 3 or rows[1] != {"error": no_image}:
            return f"expected an error at 1 of 3, got {status}: {rows}"
        return different([rows[0], rows[2]], [right, right])

    def post(kind: str, body: bytes, status: int, sentence: str, **more: str) -> Request:
        return Request(kind, [server.post(body, **more)], refused(status, sentence))

    def whole(
        kind: str, sent: bytes | Sequence[bytes], status: int, sentence: str, **more: Any
    ) -> Request:
        parts = [sent] if isinstance(sent, bytes) else sent
        return Request(kind, parts, refused(status, sentence), **more)

    def elsewhere(kind: str, path: str, status: int, sentence: str) -> Request:
        return whole(kind, server.request("POST", path, one), status, sentence)

    megabyte = bytes(MB)
    announced = server.post(b"", Content_Length=str(100 * MB))
    chunked = server.post(b"", Transfer_Encoding="chunked").replace(b"Content-Length: 0\r\n", b"")
    slow_body = server.post(b"", Content_Length="1000")
    pixels = json.dumps({"instances": [[[1]]], "signature_name": "serve_pixels"}).encode()
    return [
        post("not base64", one.replace(b'"b64": "', b'"b64": "*', 1), 400, f"{item}It is not base"),
        post("not an image", rows_of([b"<html>" * 50]), 400, item + no_image),
        post("an empty file", rows_of([b""]), 400, f"{item}{image}empty."),
        post("a truncated photo", rows_of([photo[: len(photo) // 2]]), 400, f"{item}{image}trunc"),
        post("a decompression bomb", rows_of([bomb()]), 400, f"{item}The file "),
        Request("one bad file of three", [server.post(rows_of([photo, b"x", photo]))], amid_good),
        post("10,000 instances", b'{"instances": [%s0]}' % (b"0," * 9999), 400, "instances: expec"),
        whole("a body of 100 MB", [announced, *[megabyte] * 100], 413, large, alone=True),
        whole(
            "a body of 40 MB in chunks",
            [chunked, *[b"%x\r\n%b\r\n" % (MB, megabyte)] * 40, b"0\r\n\r\n"],
            *(413, large),
            alone=True,
        ),
        whole("a slow head", announced[:40], 408, "No request came within 3 sec", alone=True),
        whole("a slow body", slow_body + b"{", 408, "The request took longer", alone=True),
        whole("no HTTP", b"\x16\x03\x01\x02\r\n\r\n", 400, "This is not an HTTP", alone=True),
        whole("a client that goes", server.post(one), 0, "", alone=True, waits=False),
        elsewhere("a wrong version", f"{path}/versions/99:predict", 404, "Version 99 of"),
        elsewhere("a wrong name", "/v1/models/other:predict", 404, "There is no model 'other'"),
        elsewhere("a path as the name", "/v1/models/..%2f..%2fetc%2fpasswd:predict", 404, "There"),
        elsewhere("a path", "/page/../../../etc/passwd", 404, "There is nothing at this address."),
        post("a wrong token", one, 401, "The token is not", Authorization="Bearer soak-test-tokem"),
        post("another site", one, 403, "A page of another", Origin="http://example.org"),
        post("a compressed body", one, 415, "The body is compressed.", Content_Encoding="gzip"),
        post("not JSON", one[:-5], 400, "The body is not JSON"),
        post("brackets in brackets", b"[" * 1900, 400, "The body has too many brackets"),
        post("neither list", b'{"images": 1}', 400, 'Expected either "instances"'),
        post("a wrong signature", one[:-1] + b', "signature_name": "x"}', 400, "signature_name: "),
        post("wrong pixels", pixels, 400, f"{item}Expected "),
        whole("a wrong method", server.request("GET", f"{path}:predict"), 405, "GET is not"),
    ]


if __name__ == "__main__":
    main()
