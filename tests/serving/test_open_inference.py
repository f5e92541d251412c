"""The Open Inference Protocol: metadata, health, forms of requests and answers, refusals."""

import json

import httpx
import numpy as np
import pytest
import tensorflow as tf
from encoded import PHOTO, blocks, encode
from served import base64_of, exported_run, serving, signatures_of
from small_run import NAMES

import kerasft

OTHER = encode(blocks(), "PNG")
NO_IMAGE = "The file is not a JPEG, PNG, GIF, BMP or WebP image."
TEXT = base64_of(PHOTO)["b64"]
SIZE = 32 * 32 * 3


@pytest.fixture(scope="module")
def version(tmp_path_factory):
    return exported_run(tmp_path_factory.mktemp("served"), 7) / "export" / "7"


@pytest.fixture(scope="module")
def model(version):
    with serving(version.parent, name="shapes") as server:
        yield f"{server.url}/v2/models/shapes"


@pytest.fixture(scope="module")
def signatures(version):
    """What the SavedModel itself computes."""
    return signatures_of(version)


def files(*data, **more):
    tensor = {"name": "image_bytes", "datatype": "BYTES", "shape": [len(data)], "data": data}
    return {"inputs": [tensor | more]}


def pixels(data, images=1, **more):
    tensor = {"name": "pixels", "datatype": "FP32", "shape": [images, 32, 32, 3], "data": data}
    return {"inputs": [tensor | more]}


def infer(model, asked):
    got = httpx.post(f"{model}/infer", content=json.dumps(asked), timeout=30)
    return got.status_code, got.json()


def outputs_of(answer):
    """The outputs by name, as arrays of their shapes."""
    return {
        one["name"]: np.reshape(one["data"], one["shape"]).tolist() for one in answer["outputs"]
    }


def test_the_server_says_its_name_version_and_state(model):
    root = model.removesuffix("/models/shapes")
    told = {"name": "kerasft", "version": kerasft.__version__, "extensions": []}
    assert httpx.get(root).json() == told
    assert httpx.get(f"{root}/health/live").json() == {"live": True}
    assert httpx.get(f"{root}/health/ready").json() == {"ready": True}


@pytest.mark.parametrize("path", ["", "/versions/7"])
def test_a_model_says_what_it_takes_and_gives(model, path):
    ready = httpx.get(f"{model}{path}/ready")
    assert (ready.status_code, ready.json()) == (200, {"name": "shapes", "ready": True})
    assert httpx.get(model + path).json() == {
        "name": "shapes",
        "versions": ["7"],
        "platform": "tensorflow_savedmodel",
        "inputs": [
            {"name": "image_bytes", "datatype": "BYTES", "shape": [-1]},
            {"name": "pixels", "datatype": "FP32", "shape": [-1, 32, 32, 3]},
        ],
        "outputs": [
            {"name": "scores", "datatype": "FP32", "shape": [-1, 3]},
            {"name": "logits", "datatype": "FP32", "shape": [-1, 3]},
            {"name": "labels", "datatype": "BYTES", "shape": [-1, 3]},
            {"name": "top_label", "datatype": "BYTES", "shape": [-1]},
            {"name": "top_score", "datatype": "FP32", "shape": [-1]},
            {"name": "error", "datatype": "BYTES", "shape": [-1]},
        ],
    }


def test_files_are_answered_as_the_savedmodel_does(model, signatures):
    truth = signatures["serving_default"](image_bytes=tf.constant([PHOTO, OTHER]))
    status, got = infer(model, {"id": "42", **files(TEXT, base64_of(OTHER)["b64"])})
    assert status == 200
    assert list(got) == ["model_name", "model_version", "id", "outputs"]
    assert (got["model_name"], got["model_version"], got["id"]) == ("shapes", "7", "42")
    described = [(one["name"], one["datatype"], one["shape"]) for one in got["outputs"]]
    assert described == [
        ("scores", "FP32", [2, 3]),
        ("logits", "FP32", [2, 3]),
        ("labels", "BYTES", [2, 3]),
        ("top_label", "BYTES", [2]),
        ("top_score", "FP32", [2]),
        ("error", "BYTES", [2]),
    ]
    outputs = outputs_of(got)
    # Nine digits are written, which tell a float32 from all others.
    for name in ("scores", "logits", "top_score"):
        np.testing.assert_allclose(outputs[name], truth[name].numpy(), rtol=1e-5)
    assert outputs["labels"] == [list(NAMES)] * 2
    assert outputs["top_label"] == [one.decode() for one in truth["top_label"].numpy()]
    assert outputs["error"] == ["", ""]


@pytest.mark.parametrize(
    "more",
    [
        {"parameters": {"content_type": "base64"}},
        {"parameters": None},
        {"shape": [1, 1]},
        {"shape": [1, 1], "data": [[TEXT]]},
    ],
)
def test_files_may_come_as_mlserver_sends_them(model, more):
    asked = files(TEXT, **more) | {"id": None, "outputs": None, "parameters": {"x": 1}}
    assert infer(model, asked) == infer(model, files(TEXT))


def test_a_version_is_reached_by_its_number(model):
    assert infer(f"{model}/versions/7", files(TEXT)) == infer(model, files(TEXT))


@pytest.mark.parametrize("form", ["flat", "nested"])
def test_pixels_are_answered_as_the_savedmodel_does(model, signatures, form):
    given = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3)).astype("float32")
    truth = signatures["serve_pixels"](pixels=tf.constant(given))
    status, got = infer(model, pixels((given.ravel() if form == "flat" else given).tolist(), 2))
    outputs = outputs_of(got)
    assert (status, list(outputs)) == (200, ["scores", "logits", "error"])
    np.testing.assert_allclose(outputs["scores"], truth["scores"].numpy(), rtol=1e-5)
    np.testing.assert_allclose(outputs["logits"], truth["logits"].numpy(), rtol=1e-5)
    assert outputs["error"] == ["", ""]


def test_outputs_are_chosen(model):
    chosen = {"outputs": [{"name": "top_score", "parameters": {"x": 1}}, {"name": "top_label"}]}
    _, got = infer(model, files(TEXT) | chosen)
    assert [one["name"] for one in got["outputs"]] == ["top_score", "top_label"]
    assert "id" not in got


def test_a_bad_file_has_its_error_at_its_position_and_zeros(model):
    _, got = infer(model, files(base64_of(b"hello")["b64"], TEXT, "*", 3))
    outputs = outputs_of(got)
    assert outputs["error"] == [
        NO_IMAGE,
        "",
        "It is not base64.",
        "Expected a file in base64, got a number.",
    ]
    assert outputs["scores"][0] == outputs["logits"][2] == [0, 0, 0]
    assert outputs["top_score"][0] == outputs["top_score"][3] == 0
    assert (outputs["top_label"][0], outputs["top_label"][1] in NAMES) == ("", True)
    assert outputs["labels"] == [list(NAMES)] * 4


def test_an_error_is_sent_where_it_was_not_asked_for(model):
    _, got = infer(model, files("*", TEXT) | {"outputs": [{"name": "top_label"}]})
    assert [one["name"] for one in got["outputs"]] == ["top_label", "error"]
    assert got["outputs"][1]["data"] == ["It is not base64.", ""]


def test_bad_pixels_have_their_error_at_their_position(model):
    _, got = infer(model, pixels([0] * SIZE + [256] * SIZE, 2))
    outputs = outputs_of(got)
    assert outputs["error"] == ["", "Expected numbers from 0 to 255, got others."]
    assert outputs["scores"][1] == [0, 0, 0]
    assert sum(outputs["scores"][0]) == pytest.approx(1)


ONE_TENSOR = "inputs: expected a list with one tensor, image_bytes or pixels, got "
NUMBERS = "inputs[0].data: expected 3,072 numbers, flat or in the shape [1, 32, 32, 3], got "
OUTPUTS = "scores, logits, labels, top_label, top_score, error"


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({}, f"{ONE_TENSOR}null."),
        ({"inputs": []}, f"{ONE_TENSOR}an empty list."),
        ({"inputs": [1]}, f"{ONE_TENSOR}a list of 1."),
        ({"inputs": [*files(TEXT)["inputs"], *pixels([])["inputs"]]}, f"{ONE_TENSOR}a list of 2."),
        (
            files(TEXT, name="image_byte"),
            "inputs[0].name: expected one of image_bytes, pixels, got 'image_byte'. "
            "Did you mean 'image_bytes'?",
        ),
        (files(TEXT, name=None), "inputs[0].name: expected one of image_bytes, pixels, got null."),
        (files(TEXT, datatype="FP32"), "inputs[0].datatype: expected BYTES, got 'FP32'."),
        (pixels([], datatype="UINT8"), "inputs[0].datatype: expected FP32, got 'UINT8'."),
        (files(), "inputs[0].data: expected a list of files in base64, got an empty list."),
        (
            files(TEXT, data=TEXT[:3]),
            f"inputs[0].data: expected a list of files in base64, got '{TEXT[:3]}'.",
        ),
        (
            files(TEXT, shape=[2]),
            "inputs[0].shape: expected [1], as there are so many in its data, got [2].",
        ),
        (
            files(*["x"] * 257),
            "inputs[0].data: expected at most 256 items, got 257. Send them in several requests.",
        ),
        (
            pixels([0] * SIZE, shape=[1, 3, 32, 32]),
            "inputs[0].shape: expected [N, 32, 32, 3], got [1, 3, 32, 32].",
        ),
        (pixels([0], shape="x"), "inputs[0].shape: expected [N, 32, 32, 3], got 'x'."),
        (pixels([0], shape=[]), "inputs[0].shape: expected [N, 32, 32, 3], got []."),
        (pixels([0], 0), "inputs[0].shape: expected one or more images, got [0, 32, 32, 3]."),
        (
            pixels([0], 257),
            "inputs[0].shape: expected at most 256 items, got 257. Send them in several requests.",
        ),
        (pixels([0] * (SIZE - 1)), f"{NUMBERS}numbers of shape [3071]."),
        (pixels(["x"]), f"{NUMBERS}something else."),
        (pixels([[1, 2], [3]]), f"{NUMBERS}something else."),
        (pixels([0, "x" * 10**6, *[0] * 10_000]), f"{NUMBERS}something else."),
        (pixels([True] * SIZE), f"{NUMBERS}something else."),
        (pixels(None), f"{NUMBERS}something else."),
        (
            pixels([256] * SIZE),
            "pixels[0]: Expected numbers from 0 to 255, got others.",
        ),
        (files(base64_of(b"hello")["b64"]), f"image_bytes[0]: {NO_IMAGE}"),
        (
            files(*["*"] * 5),
            "image_bytes[0]: It is not base64. image_bytes[1]: It is not base64. "
            "image_bytes[2]: It is not base64. And 2 more.",
        ),
        (
            files(TEXT) | {"outputs": [{"name": "top_labels"}]},
            f"outputs[0].name: expected one of {OUTPUTS}, got 'top_labels'. "
            "Did you mean 'top_label'?",
        ),
        (
            pixels([0] * SIZE) | {"outputs": [{"name": "scores"}, {"name": "labels"}]},
            "outputs[1].name: expected one of scores, logits, error, got 'labels'.",
        ),
        (
            files(TEXT) | {"outputs": ["scores"]},
            'outputs: expected a list such as [{"name": "scores"}], got a list of something else.',
        ),
        (
            files(TEXT) | {"outputs": 3},
            'outputs: expected a list such as [{"name": "scores"}], got a number.',
        ),
        (files(TEXT) | {"id": 42}, "id: expected a text, got a number."),
        ([1], "Expected a JSON object, got a list."),
    ],
)
def test_a_request_that_is_wrong_is_refused_with_a_sentence(model, asked, said):
    assert infer(model, asked) == (400, {"error": said})


def test_binary_tensors_are_refused(model):
    headers = {"Inference-Header-Content-Length": "2"}
    got = httpx.post(f"{model}/infer", content=b"{}\x00", headers=headers)
    said = "Binary tensors are not taken here. Send the tensors as JSON."
    assert (got.status_code, got.json()) == (400, {"error": said})


@pytest.mark.parametrize(
    ("method", "path", "status", "said"),
    [
        ("GET", "/infer", 405, "GET is not possible here."),
        ("POST", "", 405, "POST is not possible here."),
        ("GET", "/versions/8", 404, "Version 8 of 'shapes' is not served. {one}"),
        ("GET", "/versions/8/ready", 404, "Version 8 of 'shapes' is not served. {one}"),
        ("POST", "/versions/v7/infer", 404, "Version v7 of 'shapes' is not served. {one}"),
        ("POST", "/versions/9/infer", 404, "Version 9 of 'shapes' is not served. {one}"),
    ],
)
def test_a_wrong_address_is_refused(model, method, path, status, said):
    got = httpx.request(method, model + path)
    error = said.format(one="The one that is served is 7.")
    assert (got.status_code, got.json()) == (status, {"error": error})


def test_a_version_of_endless_digits_is_not_found(model):
    assert httpx.get(f"{model}/versions/{'9' * 5000}").status_code == 404


def test_another_name_is_not_found(model):
    got = httpx.post(model.replace("shapes", "shape") + "/infer")
    said = "There is no model 'shape' here. The one that is served is called 'shapes'."
    assert (got.status_code, got.json()) == (404, {"error": said})


def test_images_are_counted(model):
    url = model.replace("/v2/models/shapes", "/metrics")
    before = httpx.get(url).text
    infer(model, files(TEXT, "*", base64_of(b"hello")["b64"]))
    after = httpx.get(url).text

    def count(text, name):
        values = [line.split()[-1] for line in text.splitlines() if line.startswith(name)]
        return float(values[0]) if values else 0

    for name, more in (
        ('kerasft_images_total{how="good"}', 1),
        ('kerasft_images_total{how="bad"}', 2),
        ('kerasft_requests_total{asked="infer",status="200"}', 1),
    ):
        assert count(after, name) - count(before, name) == more
