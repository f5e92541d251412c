"""What is written and answered fits TensorFlow Serving: its messages, and its published examples.

The messages are those of the package tensorflow-serving-api, which kerasft itself does without.
"""

import json

import httpx
import pytest
import tensorflow as tf
from encoded import PHOTO, blocks, encode
from google.protobuf import json_format
from served import base64_of, exported_run, serving

from kerasft.export.savedmodel import WARM_UP

pytestmark = pytest.mark.slow
apis = pytest.importorskip("tensorflow_serving.apis", reason="needs tensorflow-serving-api")

from tensorflow_serving.apis import (  # noqa: E402
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_pb2,
    predict_pb2,
    prediction_log_pb2,
)


@pytest.fixture(scope="module")
def version(tmp_path_factory):
    return exported_run(tmp_path_factory.mktemp("served")) / "export" / "1"


@pytest.fixture(scope="module")
def model(version):
    with serving(version.parent) as server:
        yield f"{server.url}/v1/models/run"


@pytest.fixture(scope="module")
def signatures(model):
    got = httpx.get(f"{model}/metadata").json()
    spec = json_format.ParseDict(got["model_spec"], model_pb2.ModelSpec())
    assert (spec.name, spec.version.value) == ("run", 1)
    found = json_format.ParseDict(
        got["metadata"]["signature_def"], get_model_metadata_pb2.SignatureDefMap()
    )
    return found.signature_def


def test_the_warm_up_requests_are_its_messages_and_the_model_answers_them(version):
    loaded = tf.saved_model.load(str(version))
    records = [record.numpy() for record in tf.data.TFRecordDataset(str(version / WARM_UP))]
    counts = []
    for record in records:
        log = prediction_log_pb2.PredictionLog.FromString(record)
        assert log.SerializeToString() == record  # nothing in it is unknown
        assert log.WhichOneof("log_type") == "predict_log"
        request = log.predict_log.request
        signature = loaded.signatures[request.model_spec.signature_name]
        inputs = {name: tf.make_ndarray(tensor) for name, tensor in request.inputs.items()}
        answer = signature(**{name: tf.constant(value) for name, value in inputs.items()})
        counts.append(len(inputs["image_bytes"]))
        assert answer["error"].numpy().tolist() == [b""] * counts[-1]
    assert counts == [1, 8]


def test_states_are_its_message(model):
    got = json_format.Parse(httpx.get(model).text, get_model_status_pb2.GetModelStatusResponse())
    [one] = got.model_version_status
    assert (one.version, one.state) == (1, get_model_status_pb2.ModelVersionStatus.AVAILABLE)
    assert (one.status.error_code, one.status.error_message) == (0, "")


def test_a_refused_version_is_its_message_too():
    from kerasft.serving import rest
    from kerasft.serving.versions import State

    written = rest.states({2: State("END", "it is damaged."), 1: State("AVAILABLE")})
    got = json_format.ParseDict(written, get_model_status_pb2.GetModelStatusResponse())
    assert [one.state for one in got.model_version_status] == [50, 30]  # END, AVAILABLE
    assert got.model_version_status[0].status.error_message == "it is damaged."


@pytest.mark.parametrize("name", ["serving_default", "serve_logits", "serve_pixels"])
def test_requests_and_answers_fit_the_signatures(model, signatures, name):
    described = signatures[name]
    [(input_name, _)] = described.inputs.items()
    items = [base64_of(PHOTO), base64_of(encode(blocks(), "PNG"))]
    if input_name == "pixels":
        items = [[[[0.0] * 3] * 32] * 32] * 2
    asked = json.dumps({"signature_name": name, "inputs": {input_name: items}})
    outputs = httpx.post(f"{model}:predict", content=asked, timeout=60).json()["outputs"]
    assert sorted(outputs) == sorted(described.outputs)
    response = predict_pb2.PredictResponse()
    for key, column in outputs.items():
        info = described.outputs[key]
        tensor = tf.make_tensor_proto(column, dtype=info.dtype)
        response.outputs[key].CopyFrom(tensor)
        sizes = [dim.size for dim in info.tensor_shape.dim]
        shape = [dim.size for dim in tensor.tensor_shape.dim]
        assert len(sizes) == len(shape) and shape[0] == 2
        assert all(size in (-1, got) for size, got in zip(sizes, shape, strict=True))
    assert predict_pb2.PredictResponse.FromString(response.SerializeToString()) == response


def test_published_examples_have_our_forms(model):
    """The answers of the page "RESTful API" have these keys, down to the values."""
    status = json.loads(
        '{"model_version_status": [{"version": "1", "state": "AVAILABLE", '
        '"status": {"error_code": "OK", "error_message": ""}}]}'
    )
    assert httpx.get(model).json() == status
    rows = json.dumps({"signature_name": "serving_default", "instances": [base64_of(PHOTO)]})
    assert list(httpx.post(f"{model}:predict", content=rows).json()) == ["predictions"]
    columns = json.dumps({"inputs": [base64_of(PHOTO)]})
    assert list(httpx.post(f"{model}:predict", content=columns).json()) == ["outputs"]
    assert list(httpx.post(f"{model}:predict", content="{}").json()) == ["error"]
