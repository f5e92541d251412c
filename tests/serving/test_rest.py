"""The REST API is TensorFlow Serving's: forms of requests and answers, states, metadata."""

import json

import httpx
import numpy as np
import pytest
import tensorflow as tf
from encoded import PHOTO, blocks, encode
from served import ask, base64_of, exported_run, serving, signatures_of
from small_run import NAMES

OTHER = encode(blocks(), "PNG")
NO_IMAGE = "The file is not a JPEG, PNG, GIF, BMP or WebP image."


@pytest.fixture(scope="module")
def version(tmp_path_factory):
    return exported_run(tmp_path_factory.mktemp("served"), 7) / "export" / "7"


@pytest.fixture(scope="module")
def model(version):
    with serving(version.parent, name="shapes") as server:
        yield f"{server.url}/v1/models/shapes"


@pytest.fixture(scope="module")
def truth(version):
    """What the SavedModel itself says of PHOTO and OTHER."""
    return signatures_of(version)["serving_default"](image_bytes=tf.constant([PHOTO, OTHER]))


def predict(model, **asked):
    got = httpx.post(f"{model}:predict", content=json.dumps(asked), timeout=30)
    return got.status_code, got.json()


def test_rows_are_answered_with_all_outputs_of_the_signature(model, truth):
    got = ask(f"{model}:predict", PHOTO, OTHER)
    assert (got.status_code, got.headers["content-type"]) == (200, "application/json")
    assert list(got.json()) == ["predictions"]
    first, second = got.json()["predictions"]
    assert set(first) == set(truth)
    assert first["labels"] == list(NAMES)
    assert first["top_label"] == truth["top_label"][0].numpy().decode()
    # Nine digits are written, which tell a float32 from all others.
    for name in ("scores", "logits", "top_score"):
        np.testing.assert_allclose(first[name], truth[name][0].numpy(), rtol=1e-5)
        np.testing.assert_allclose(second[name], truth[name][1].numpy(), rtol=1e-5)


def test_an_input_may_be_named(model):
    named = predict(model, instances=[{"image_bytes": base64_of(PHOTO)}])
    assert named == predict(model, instances=[base64_of(PHOTO)])


def test_columns_are_answered_with_columns(model):
    status, rows = predict(model, instances=[base64_of(PHOTO), base64_of(OTHER)])
    named = predict(model, inputs={"image_bytes": [base64_of(PHOTO), base64_of(OTHER)]})
    bare = predict(model, inputs=[base64_of(PHOTO), base64_of(OTHER)])
    assert (status, named[0], named) == (200, 200, bare)
    columns = {name: [row[name] for row in rows["predictions"]] for name in rows["predictions"][0]}
    assert named[1] == {"outputs": columns}


def test_logits_have_a_signature_of_their_own(model, truth):
    asked = {"signature_name": "serve_logits"}
    _, rows = predict(model, instances=[base64_of(PHOTO), base64_of(b"hello")], **asked)
    good, bad = rows["predictions"]
    np.testing.assert_allclose(good["logits"], truth["logits"].numpy()[0], rtol=1e-5)
    assert (sorted(good), good["error"], bad) == (["error", "logits"], "", {"error": NO_IMAGE})
    _, columns = predict(model, inputs=[base64_of(PHOTO), base64_of(b"hello")], **asked)
    assert columns == {"outputs": {"logits": [good["logits"], [0, 0, 0]], "error": ["", NO_IMAGE]}}


@pytest.mark.parametrize("named", [False, True])
def test_pixels_are_lists(model, named):
    pixels = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3)).tolist()
    asked = {"signature_name": "serve_pixels"}
    rows = predict(model, instances=[{"pixels": one} if named else one for one in pixels], **asked)
    columns = predict(model, inputs={"pixels": pixels} if named else pixels, **asked)
    assert (rows[0], columns[0]) == (200, 200)
    assert columns[1]["outputs"]["scores"] == [row["scores"] for row in rows[1]["predictions"]]
    assert sorted(rows[1]["predictions"][0]) == ["logits", "scores"]


def test_a_version_is_reached_by_its_number_and_another_one_is_not(model):
    body = json.dumps({"instances": [base64_of(PHOTO)]})
    assert httpx.post(f"{model}/versions/7:predict", content=body).status_code == 200
    for path in ("/versions/8:predict", "/versions/999999999999999999:predict"):
        got = httpx.post(model + path, content=body)
        assert got.status_code == 404
        assert got.json()["error"].endswith("is not served. The one that is served is 7.")
    got = httpx.post(f"{model}/labels/stable:predict", content=body)
    assert got.status_code == 400
    assert got.json()["error"].startswith("Unrecognized servable version label: stable.")


@pytest.mark.parametrize("path", ["", "/versions/7"])
def test_the_state_of_versions_is_told(model, path):
    status = {"error_code": "OK", "error_message": ""}
    assert httpx.get(model + path).json() == {
        "model_version_status": [{"version": "7", "state": "AVAILABLE", "status": status}]
    }
    assert httpx.get(f"{model}/versions/1").status_code == 404


@pytest.mark.parametrize("path", ["/metadata", "/versions/7/metadata"])
def test_metadata_describes_the_signatures(model, path):
    got = httpx.get(model + path).json()
    assert got["model_spec"] == {"name": "shapes", "signature_name": "", "version": "7"}
    signatures = got["metadata"]["signature_def"]["signature_def"]
    assert {"serving_default", "serve_logits", "serve_pixels"} <= set(signatures)
    default = signatures["serving_default"]
    assert default["method_name"] == "tensorflow/serving/predict"
    assert default["inputs"]["image_bytes"]["dtype"] == "DT_STRING"
    dims = [{"size": "-1", "name": ""}, {"size": "3", "name": ""}]
    assert default["outputs"]["scores"]["tensor_shape"] == {"dim": dims, "unknown_rank": False}


def test_a_bad_item_is_answered_at_its_position(model):
    bad = [base64_of(b"hello"), {"b64": "*"}, "x", {"b46": "x"}, 3, None, {"b64": 3}]
    status, got = predict(model, instances=[base64_of(PHOTO), *bad, base64_of(OTHER)])
    first, *middle, last = got["predictions"]
    assert status == 200
    assert first["top_label"] in NAMES and last["top_label"] in NAMES
    expected = 'Expected {"b64": "..."}, with the file in base64; got '
    in_json = ". A file that is not in base64 can't stand in JSON."
    assert middle == [
        {"error": NO_IMAGE},
        {"error": "It is not base64."},
        {"error": f"{expected}'x'{in_json}"},
        {"error": 'Expected {"b64": "..."}, got an object with b46. Did you mean \'b64\'?'},
        {"error": f"{expected}a number{in_json}"},
        {"error": f"{expected}null{in_json}"},
        {"error": f"{expected}an object with b64{in_json}"},
    ]


def test_a_bad_item_in_columns_has_zeros_no_label_and_its_error(model):
    _, got = predict(model, inputs=[base64_of(b"hello"), base64_of(PHOTO)])
    outputs = got["outputs"]
    assert outputs["scores"][0] == outputs["logits"][0] == [0, 0, 0]
    assert (outputs["top_label"][0], outputs["top_score"][0]) == ("", 0)
    assert outputs["labels"] == [list(NAMES)] * 2
    assert outputs["top_label"][1] in NAMES
    assert outputs["error"] == [NO_IMAGE, ""]


def test_a_request_in_which_all_items_are_bad_is_refused(model):
    status, got = predict(model, instances=[base64_of(b"hello")] * 5)
    said = " ".join(f"instances[{i}]: {NO_IMAGE}" for i in range(3))
    assert (status, got) == (400, {"error": f"{said} And 2 more."})
    status, got = predict(model, inputs=[base64_of(b"")])
    assert (status, got) == (400, {"error": "inputs[0]: The file is empty."})


def test_base64_may_come_in_lines_and_without_its_last_signs(model):
    text = base64_of(PHOTO)["b64"]
    lines = "\n".join(text[i : i + 76] for i in range(0, len(text), 76)).rstrip("=")
    status, got = predict(model, instances=[{"b64": lines}, {"b64": text}])
    assert status == 200 and got["predictions"][0] == got["predictions"][1]
    _, got = predict(model, instances=[{"b64": f"data:image/jpeg;base64,{text}"}])
    assert got["error"] == "instances[0]: It is a data: URL. Leave out all up to its comma."


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "The body is not JSON: expecting value."),
        (b"hello", "The body is not JSON: expecting value."),
        (b"\xff\xfe\xfd", "The body is not JSON: its text is not readable."),
        (b"[1]", "Expected a JSON object, got a list."),
        (b"[" * 1900, "The body has too many brackets within brackets."),
        (b"[]," * 100_000, "The body has too many brackets to be a list of images."),
        (b"1" * 5000, "The body is not JSON: its text is not readable."),
        (
            b'{"instances": []}',
            'instances: expected a list such as [{"b64": "..."}], got an empty list.',
        ),
        (b'{"inputs": 3}', 'inputs: expected a list such as [{"b64": "..."}], got a number.'),
        (
            b'{"image": "x"}',
            'Expected either "instances", a list with an item per image, or "inputs", a list of '
            "all; got only image.",
        ),
        (
            b'{"inputs": [1], "instances": [1]}',
            'Expected either "instances", a list with an item per image, or "inputs", a list of '
            "all; got both.",
        ),
        (
            b'{"instances": [1], "signature_name": "serve_logit"}',
            "signature_name: expected one of serving_default, serve_logits, serve_pixels, got "
            "'serve_logit'. Did you mean 'serve_logits'?",
        ),
        (
            b'{"instances": [1], "signature_name": ["x"]}',
            "signature_name: expected one of serving_default, serve_logits, serve_pixels, got "
            "a list.",
        ),
    ],
)  # fmt: skip
def test_a_request_that_is_wrong_as_a_whole_is_refused_with_a_sentence(model, body, said):
    got = httpx.post(f"{model}:predict", content=body)
    assert (got.status_code, got.json()) == (400, {"error": said})


@pytest.mark.parametrize(
    ("pixels", "said"),
    [
        ([[1, 2], [3]], "got something else."),
        ("x", "got something else."),
        ([[[True] * 3] * 32] * 32, "got something else."),
        ([[[0] * 3] * 32] * 31, "got numbers of shape 31x32x3."),
        ([[[256] * 3] * 32] * 32, "Expected numbers from 0 to 255, got others."),
        ([[[-1] * 3] * 32] * 32, "Expected numbers from 0 to 255, got others."),
        ([[[float("nan")] * 3] * 32] * 32, "Expected numbers from 0 to 255, got others."),
        ([[[10**400] * 3] * 32] * 32, "got something else."),
    ],
)
def test_pixels_that_are_none_are_refused(model, pixels, said):
    status, got = predict(model, instances=[pixels], signature_name="serve_pixels")
    assert status == 400
    assert got["error"].startswith("instances[0]: Expected ") and got["error"].endswith(said)


def test_a_text_among_pixels_does_not_make_each_of_them_as_long(model):
    # NumPy's array of texts would take 37 GiB.
    status, got = predict(
        model, instances=[[0, "x" * 10**6, *[0] * 10_000]], signature_name="serve_pixels"
    )
    assert status == 400
    assert got["error"].endswith("got something else.")


@pytest.mark.parametrize(
    ("method", "path", "status", "said"),
    [
        ("GET", ":predict", 405, "GET is not possible here, only POST."),
        ("POST", "", 405, "POST is not possible here, only GET."),
        ("DELETE", "/metadata", 405, "DELETE is not possible here, only GET."),
        (
            "POST",
            ":classify",
            400,
            "The model has no signature for classify. Only :predict is possible.",
        ),
    ],
)
def test_a_wrong_method_is_refused(model, method, path, status, said):
    got = httpx.request(method, model + path)
    assert (got.status_code, got.json()) == (status, {"error": said})


def test_another_name_is_not_found(model):
    got = httpx.get(model.replace("shapes", "shape"))
    assert got.status_code == 404
    assert got.json() == {
        "error": "There is no model 'shape' here. The one that is served is called 'shapes'."
    }


def test_health_and_figures(model):
    root = model.partition("/v1")[0]
    assert httpx.get(f"{root}/healthz").json() == {"status": "ok", "version": 7}
    before = figures(root)
    ask(f"{model}:predict", PHOTO, b"hello")
    after = figures(root)
    grown = {name: after[name] - before.get(name, 0) for name in after}
    assert grown['kerasft_images_total{how="good"}'] == 1
    assert grown['kerasft_images_total{how="bad"}'] == 1
    assert grown['kerasft_requests_total{asked="predict",status="200"}'] == 1
    assert after["kerasft_model_version"] == 7
    assert after["kerasft_waiting_images"] == 0
    assert after["kerasft_batch_images_count"] > 0


def figures(root):
    got = httpx.get(f"{root}/metrics")
    assert got.headers["content-type"].startswith("text/plain; version=")
    lines = [line.rpartition(" ") for line in got.text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in lines}
