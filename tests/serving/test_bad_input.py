"""Whatever comes, it gets the right status and a sentence, and the server goes on serving."""

import http.client
import json
import socket
import struct
import threading
import time
import tracemalloc
import zlib
from contextlib import suppress

import httpx
import pytest
from encoded import PHOTO, blocks, encode
from PIL import Image
from served import ask, base64_of, exported_run, serving
from small_run import NAMES

from kerasft.serving.limits import Limits

TIGHT = Limits(
    body=2_000_000,
    bodies=3_000_000,
    instances=8,
    queue=6,
    connections=20,
    seconds_to_send=0.5,
    seconds_to_answer=2,
)


def answer_of(predict):
    """Returns the answer for a photo; a request that was given up may still be computed."""
    for _ in range(50):
        got = ask(predict, PHOTO)
        if got.status_code == 200:
            break
        time.sleep(0.1)
    return got


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    version = exported_run(tmp_path_factory.mktemp("served")) / "export" / "1"
    with serving(version.parent, limits=TIGHT) as server:
        # The first answers of a process take longer than TIGHT allows on a busy machine.
        answer_of(f"{server.url}/v1/models/run:predict")
        yield server


@pytest.fixture(scope="module")
def predict(server):
    return f"{server.url}/v1/models/run:predict"


@pytest.fixture(autouse=True)
def it_serves_afterwards(predict):
    yield
    assert answer_of(predict).json()["predictions"][0]["top_label"] in NAMES


@pytest.fixture
def address(server):
    host, _, port = server.url.removeprefix("http://").partition(":")
    return host, int(port)


def talk(address, *parts, pause=0.0):
    """Sends parts over a connection; returns what comes back until it is closed."""
    with socket.create_connection(address, timeout=20) as connection:
        for part in parts:
            connection.sendall(part)
            time.sleep(pause)
        return received(connection)


def received(connection):
    answer = b""
    while part := connection.recv(65536):
        answer += part
    return answer


def head(length, *more):
    lines = ["POST /v1/models/run:predict HTTP/1.1", "Host: localhost", f"Content-Length: {length}"]
    return "\r\n".join([*lines, *more, "", ""]).encode()


def error_in(answer):
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)["error"]


def test_a_decompression_bomb_is_refused_by_its_header(predict):
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b"")]
    bomb = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    )
    got = ask(predict, PHOTO, bomb)
    assert got.status_code == 200
    assert "60000x60000 pixels" in got.json()["predictions"][1]["error"]


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_of_100_mb_is_refused_and_never_held(address, chunked):
    connection = http.client.HTTPConnection(*address, timeout=30)
    chunk = bytes(1_000_000)
    size = {} if chunked else {"Content-Length": "100000000"}
    tracemalloc.start()
    connection.request(
        "POST", "/v1/models/run:predict", (chunk for _ in range(100)), size, encode_chunked=chunked
    )
    got = connection.getresponse()
    said = json.load(got)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    connection.close()
    assert got.status == 413
    assert said["error"].startswith("The body is larger than 2.0 MB.")
    assert peak < 10_000_000


def test_a_body_of_100_mb_is_refused_before_it_is_sent(address):
    answer = talk(address, head(100_000_000, "Expect: 100-continue"))
    assert error_in(answer)[0] == 413


def test_what_is_sent_on_after_the_answer_is_not_read_for_ever(address):
    start = time.perf_counter()
    with socket.create_connection(address, timeout=20) as connection:
        connection.sendall(head(100_000_000))
        assert connection.recv(65536).startswith(b"HTTP/1.1 413")
        with pytest.raises(OSError):
            for _ in range(200):
                connection.sendall(bytes(10))
                time.sleep(0.05)
    assert time.perf_counter() - start < 5


def test_10_000_instances_are_refused(predict):
    got = httpx.post(predict, content=json.dumps({"instances": [0] * 10_000}))
    assert got.status_code == 400
    assert got.json() == {
        "error": "instances: expected at most 8 items, got 10,000. Send them in several requests."
    }


def test_more_images_than_may_wait_are_sent_away_with_a_time(predict):
    got = ask(predict, *[PHOTO] * 7)
    assert got.status_code == 503
    assert got.json() == {"error": "6 images may wait, and these would be more. Try again."}
    assert 1 <= int(got.headers["retry-after"]) <= 60


def test_more_bytes_than_the_server_holds_are_sent_away(address, predict):
    with socket.create_connection(address, timeout=20) as connection:
        connection.sendall(head(1_900_000) + bytes(1_899_999))
        time.sleep(0.2)
        got = httpx.post(predict, content=bytes(1_900_000))
    assert (got.status_code, got.headers["retry-after"]) == (503, "1")


def test_an_image_that_takes_too_long_is_given_up(predict):
    slow = encode(Image.new("RGB", (9_900, 9_900)), "PNG")  # 98 million pixels in 300 kB
    got = ask(predict, slow, slow, slow, slow)
    assert got.status_code == 504
    assert got.json() == {"error": "There was no answer within 2 seconds."}


@pytest.mark.parametrize("sent", [b"", b"POST /v1/mod", head(10)[:-2]])
def test_a_client_that_does_not_finish_its_head_is_given_up(address, sent):
    answer = talk(address, sent)
    assert error_in(answer) == (408, "No request came within 0.5 seconds.")


def test_a_client_that_sends_its_head_byte_by_byte_is_given_up(address):
    start = time.perf_counter()
    with socket.create_connection(address, timeout=20) as connection, pytest.raises(OSError):
        for byte in b"GET /healthz HTTP/1.1\r\nX-Slow: " + b"x" * 1000:
            connection.sendall(bytes([byte]))
            time.sleep(0.05)
    assert time.perf_counter() - start < 5


def test_a_client_that_does_not_read_its_answers_is_given_up(address):
    asked = b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with socket.create_connection(address, timeout=20) as connection:
        connection.sendall(asked * 2000)  # 40 MB of answers
        time.sleep(2)
        answers = b""
        with suppress(ConnectionError):
            answers = received(connection)
    assert answers.count(b"HTTP/1.1 200 OK") < 2000


def test_a_client_that_sends_its_body_slowly_is_given_up(address):
    answer = talk(address, head(1000), b"{", b'"', b"i", pause=0.1)
    assert error_in(answer) == (408, "The request took longer than 0.5 seconds to arrive.")
    assert b"connection: close" in answer.lower()


def test_a_connection_that_pauses_between_requests_is_kept(address):
    connection = http.client.HTTPConnection(*address, timeout=20)
    for _ in range(2):
        connection.request("GET", "/healthz")
        assert json.load(connection.getresponse())["status"] == "ok"
        kept = connection.sock
        time.sleep(0.8)  # longer than a client has for a head
    assert connection.sock is kept is not None
    connection.close()


def test_too_many_connections_are_sent_away(address):
    many = [socket.create_connection(address, timeout=20) for _ in range(20)]
    try:
        time.sleep(0.2)
        assert error_in(talk(address))[0] == 503
    finally:
        for one in many:
            one.close()


def test_a_client_that_goes_away_costs_nothing_more(address, predict):
    slow = encode(Image.new("RGB", (6_000, 6_000)), "PNG")
    body = json.dumps({"instances": [base64_of(slow)] * 6}).encode()
    with socket.create_connection(address, timeout=20) as connection:
        connection.sendall(head(len(body)) + body)
        time.sleep(0.1)
    start = time.perf_counter()
    while ask(predict, PHOTO).status_code != 200:
        time.sleep(0.05)
    assert time.perf_counter() - start < 3  # six of them take longer


@pytest.mark.parametrize(
    "sent",
    [
        b"hello\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",  # no Host
        b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 100_000,
    ],
)
def test_what_is_no_http_is_refused(address, sent):
    assert error_in(talk(address, sent)) == (400, "This is not an HTTP request.")


def test_a_compressed_body_is_refused(predict):
    got = httpx.post(predict, content=b"x", headers={"Content-Encoding": "gzip"})
    assert (got.status_code, got.json()) == (
        415,
        {"error": "The body is compressed. Send it as it is."},
    )


def test_many_at_once_are_each_answered_or_sent_away(predict):
    statuses = []

    def send(number):
        good = number % 10 != 3
        got = ask(predict, PHOTO if good else b"junk")
        statuses.append((good, got.status_code))

    threads = [threading.Thread(target=send, args=(i,)) for i in range(15)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(statuses) == 15
    assert {status for good, status in statuses if good} <= {200, 503}
    assert {status for good, status in statuses if not good} <= {400, 503}


def test_the_small_control_is_a_photo(predict):
    assert ask(predict, encode(blocks(), "PNG")).status_code == 200
