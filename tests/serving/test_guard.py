"""Who may ask: token, host, origin; and that no path leads to a file of the machine."""

import http.client
import json

import httpx
import pytest
from encoded import PHOTO
from served import ask, exported_run, serving

TOKEN = "correct-horse-battery"


@pytest.fixture(scope="module")
def versions(tmp_path_factory):
    return exported_run(tmp_path_factory.mktemp("served")) / "export"


@pytest.fixture(scope="module")
def open_url(versions):
    with serving(versions) as server:
        yield server.url


@pytest.fixture(scope="module")
def guarded_url(versions, tmp_path_factory):
    file = tmp_path_factory.mktemp("token") / "token"
    file.write_text(f"{TOKEN}\n")
    file.chmod(0o600)
    with serving(versions, token_file=file) as server:
        yield server.url


def raw(url, method, path, **headers):
    """Sends a path as it is written, which httpx would tidy up."""
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=20)
    connection.putrequest(method, path, skip_host="Host" in headers)
    for name, value in headers.items():
        connection.putheader(name.replace("_", "-"), value)
    connection.endheaders()
    got = connection.getresponse()
    status, body = got.status, got.read()
    connection.close()
    return status, body


@pytest.mark.parametrize(
    "path",
    [
        "/metrics",
        "/openapi.json",
        "/v1/models/run",
        "/v1/models/run/metadata",
        "/page/about",
        "/nothing",
    ],
)
@pytest.mark.parametrize(
    "given",
    [None, "Bearer", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", f"Basic {TOKEN}", "Bearer ü"],
)
def test_without_the_token_there_is_nothing(guarded_url, path, given):
    headers = {} if given is None else {"Authorization": given.encode("utf-8")}
    got = httpx.get(guarded_url + path, headers=headers)
    assert (got.status_code, got.headers["www-authenticate"]) == (401, "Bearer")
    assert got.json()["error"].startswith("The token ")


def test_with_the_token_all_is_as_without_one(guarded_url):
    predict = f"{guarded_url}/v1/models/run:predict"
    assert ask(predict, PHOTO).status_code == 401
    for scheme in ("Bearer", "bearer"):
        headers = {"Authorization": f"{scheme} {TOKEN}"}
        assert httpx.get(f"{guarded_url}/v1/models/run", headers=headers).status_code == 200


OPEN = ["/", "/healthz", "/v2/health/live", "/v2/health/ready", "/page/page.css", "/page/page.js"]


@pytest.mark.parametrize("path", OPEN)
def test_the_page_and_health_need_no_token(guarded_url, path):
    got = httpx.get(guarded_url + path)
    assert got.status_code == 200
    assert TOKEN not in got.text


@pytest.mark.parametrize(
    "path",
    [
        "/../../etc/passwd",
        "/..%2f..%2fetc/passwd",
        "/%2e%2e/%2e%2e/etc/passwd",
        "/page/../../../etc/passwd",
        "/page/%2e%2e%2f__init__.py",
        "/page/page.html",
        "/page/openapi.json",
        "//etc/passwd",
        "/v1/models/../../etc/passwd",
        "/v1/models/..%2frun",
        "/v1/models/run%00",
        "/v1/models/run%2f..%2frun",
        "/v1/models/%72un%3a",
        "/v1/models/run/versions/1/../1",
        "/v1/models/run/versions/-1",
        "/v1/models/run/versions/1%00",
        "/v1/models/run/versions/..",
        "/v1/models/",
        "/v1/models",
        "/healthz/",
        "/C:/Windows/win.ini",
        "/file:///etc/passwd",
    ],
)
def test_no_path_leads_anywhere_else(open_url, path):
    status, body = raw(open_url, "GET", path)
    assert status == 404
    assert list(json.loads(body)) == ["error"]


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("LOCALHOST:1234", 200),
        ("127.0.0.1:80", 200),
        ("[::1]:80", 200),
        ("evil.example", 403),
        ("127.0.0.1.evil.example:8501", 403),
        ("localhost@evil.example", 403),
        ("[::1", 403),
    ],
)
def test_a_name_that_points_here_is_not_enough(open_url, host, status):
    got, body = raw(open_url, "GET", "/v1/models/run", Host=host)
    assert got == status
    if status == 403:
        assert json.loads(body)["error"].startswith(
            "This server answers to 127.0.0.1, ::1, localhost, and the request is for another host."
        )


def test_with_a_token_the_name_does_not_matter(guarded_url):
    headers = {"Host": "models.example", "Authorization": f"Bearer {TOKEN}"}
    assert raw(guarded_url, "GET", "/v1/models/run", **headers)[0] == 200


ANOTHER_SITE = (
    "A page of another site may not use this server. If it is this server's own page behind a "
    "proxy, use a token"
)


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "http://127.0.0.1:1", "http://["]
)
def test_a_page_of_another_site_may_not_predict(open_url, origin):
    got = httpx.post(f"{open_url}/page/predict", content=PHOTO, headers={"Origin": origin})
    assert got.status_code == 403
    assert got.json() == {"error": f"{ANOTHER_SITE}."}
    own = httpx.post(f"{open_url}/page/predict", content=PHOTO, headers={"Origin": open_url})
    assert own.status_code == 200
    assert "access-control-allow-origin" not in own.headers


def test_the_page_behind_a_proxy_that_changes_the_host_predicts_by_its_token(guarded_url):
    # nginx's proxy_pass sends the address that it calls as the host.
    origin = {"Origin": "https://models.example.org"}
    predict = f"{guarded_url}/page/predict"
    got = httpx.post(predict, content=PHOTO, headers={**origin, "Authorization": f"Bearer {TOKEN}"})
    assert got.status_code == 200
    assert "access-control-allow-origin" not in got.headers
    for wrong in ({}, {"Authorization": "Bearer guessed-guessed"}):
        got = httpx.post(predict, content=PHOTO, headers={**origin, **wrong})
        assert got.status_code == 401
    assert httpx.options(predict, headers=origin).status_code == 401  # so browsers send no token


def test_a_server_for_all_without_a_token_says_what_a_proxy_must_pass_on(versions):
    with serving(versions, host="0.0.0.0") as server:
        predict = f"http://127.0.0.1:{server.url.rpartition(':')[2]}/page/predict"
        origin = {"Origin": "https://models.example.org"}
        refused = httpx.post(predict, content=PHOTO, headers=origin)
        passed = {**origin, "Host": "models.example.org"}
        own = httpx.post(predict, content=PHOTO, headers=passed)
    assert (refused.status_code, own.status_code) == (403, 200)
    assert refused.json()["error"] == (
        f"{ANOTHER_SITE}, or let it pass the host on (nginx: proxy_set_header Host $http_host;)."
    )
