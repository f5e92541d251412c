"""/openapi.json is true: what it lists is there, and what is there is listed."""

import json

import httpx
import pytest
from encoded import PHOTO
from served import base64_of, exported_run, serving


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    run = exported_run(tmp_path_factory.mktemp("served"))
    with serving(run) as server:
        yield server.url


@pytest.fixture(scope="module")
def listed(url):
    got = httpx.get(f"{url}/openapi.json")
    assert got.status_code == 200
    return got.json()


def test_every_address_answers_as_it_says(url, listed):
    predict = json.dumps({"instances": [base64_of(PHOTO)]})
    tensor = {"name": "image_bytes", "datatype": "BYTES", "shape": [1]}
    infer = json.dumps({"inputs": [{**tensor, "data": [base64_of(PHOTO)["b64"]]}]})
    for path, operations in listed["paths"].items():
        for method in ("get", "post"):
            body = PHOTO if path.startswith("/page") else predict
            body = infer if path.endswith("/infer") else body
            got = httpx.request(
                method,
                url + path.replace("{version}", "1"),
                content=body if method == "post" else None,
                timeout=30,
            )
            if method not in operations:
                assert got.status_code == 405, path
                continue
            said = operations[method]["responses"]["200"]["content"]
            assert got.status_code == 200, path
            assert got.headers["content-type"].partition(";")[0] in said, path


def test_answers_have_the_fields_it_requires(url, listed):
    schemas = listed["components"]["schemas"]
    about = httpx.get(f"{url}/page/about").json()
    assert sorted(about) == sorted(schemas["About"]["required"])
    labels = httpx.post(f"{url}/page/predict", content=PHOTO).json()
    assert sorted(labels) == sorted(schemas["Labels"]["required"])
    asked = json.dumps({"instances": [base64_of(PHOTO)]})
    [row] = httpx.post(f"{url}/v1/models/run:predict", content=asked).json()["predictions"]
    assert set(row) <= set(schemas["Row"]["properties"])
    metadata = httpx.get(f"{url}/v2/models/run").json()
    assert sorted(metadata) == sorted(schemas["ModelMetadata"]["required"])
    assert httpx.get(f"{url}/nothing").json().keys() == {"error"}


def test_references_lead_to_something(listed):
    named = set(json.dumps(listed).split('"#/components/schemas/')[1:])
    assert {one.partition('"')[0] for one in named} == set(listed["components"]["schemas"])


def test_every_route_is_listed(listed):
    from kerasft.serving.open_inference import open_inference_routes
    from kerasft.serving.page import page_routes

    paths = {path.replace("run", "NAME") for path in listed["paths"]}
    of_page = {route.path for route in page_routes(None, None)}
    assert of_page <= paths
    of_protocol = {route.path for route in open_inference_routes(None)}
    assert {path.replace("{name}", "NAME") for path in of_protocol} == {
        path for path in paths if path.startswith("/v2")
    }
    assert {"/healthz", "/metrics", "/openapi.json", "/v1/models/NAME:predict"} <= paths
