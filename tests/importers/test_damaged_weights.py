"""Damaged and hostile weights of other tools: read, or refused in plain text, and never run."""

import contextlib
import functools
import io
import json
import pickle

import numpy as np
import pytest
from caffe_files import CAFFENET_DEPLOY, write_caffemodel, write_mean
from damaged import Place, as_json, cases, damaged, objects, prove, survives
from safetensors.numpy import save

from kerasft.importers.caffemodel import open_caffemodel, read_mean
from kerasft.importers.prototxt import read_prototxt
from kerasft.importers.torchvision import import_torch

KERNEL = np.arange(2 * 3 * 2 * 2, dtype="float32").reshape(2, 3, 2, 2) - 5.5
LAYERS = [
    ("conv1", "Convolution", [KERNEL, np.float32([0.25, -7.0])]),
    ("relu1", "ReLU", []),
    ("fc", "InnerProduct", [np.linspace(-1, 1, 8, dtype="float32").reshape(4, 2)]),
]


@cases
def test_a_damaged_caffemodel_is_arrays_or_one_refusal(number, tmp_path):
    place = Place.of(tmp_path, "net.caffemodel")
    good = []
    for version in ("v1", "v2"):
        for legacy in (False, True):
            write_caffemodel(place.path, LAYERS, version=version, legacy=legacy)
            good.append(place.path.read_bytes())

    def read():
        with open_caffemodel(place.path) as layers:
            return all(
                blob.data.size == np.prod(blob.shape) and np.isfinite(blob.data.sum()) is not None
                for blobs in layers.values()
                for blob in blobs
            )

    prove(number, damaged(*good), lambda content: survives(place, content, read))


@cases
def test_a_damaged_mean_is_an_array_or_one_refusal(number, tmp_path):
    place = Place.of(tmp_path, "mean.binaryproto")
    write_mean(place.path, KERNEL[:1])
    good = place.path.read_bytes()
    prove(
        number,
        damaged(good),
        lambda content: survives(
            place, content, lambda: read_mean(place.path), lambda mean: mean.data.size >= 0
        ),
    )


@cases
def test_a_damaged_prototxt_is_layers_or_one_refusal(number, tmp_path):
    place = Place.of(tmp_path, "net.prototxt")
    good = "\n".join(CAFFENET_DEPLOY.splitlines()[:60]).encode()
    whole = CAFFENET_DEPLOY.encode()

    def check(content):
        survives(place, content, lambda: read_prototxt(place.path), list)

    found = [b"layer { " * 20_000, b"input_dim: " + b"9" * 5_000]
    prove(number, damaged(good, whole), check, found)


# safetensors


@functools.cache
def tensors():
    return save(
        {
            "features.0.weight": np.zeros((64, 3, 11, 11), "f4"),
            "features.0.bias": np.zeros(64, "f4"),
            "features.3.weight": np.zeros((2, 3), "f2"),
        }
    )


def with_header(header: bytes, rows: bytes = b"") -> bytes:
    return len(header).to_bytes(8, "little") + header + rows


def headers():
    size = int.from_bytes(tensors()[:8], "little")
    header, rows = json.loads(tensors()[8 : 8 + size]), tensors()[8 + size :]
    return objects(header).map(lambda value: with_header(as_json(value), rows))


class Harm:
    """Makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (self.path, "w"))


@cases
def test_a_damaged_safetensors_file_is_refused_in_plain_text(number, tmp_path):
    place = Place.of(tmp_path, "alexnet.safetensors")
    harm = pickle.dumps(Harm(str(tmp_path / "outer" / "harmed")))
    found = [
        harm,
        pickle.dumps(Harm(str(tmp_path / "outer" / "harmed")), protocol=0),
        with_header(b'{"a": {"dtype": "F32", "shape": [%d], "data_offsets": [0, 8]}}' % 2**60),
        (2**60).to_bytes(8, "little") + b"{}",
        with_header(b"{" * 20_000),
        with_header(b"[]"),
        b"",
    ]

    def read():
        with contextlib.redirect_stdout(io.StringIO()):
            import_torch(place.path, "alexnet", place.path.with_name("out.h5"))
        return False  # none of these is an AlexNet

    def check(content):
        survives(place, content, read, bool)
        assert not place.path.with_name("out.h5").exists()

    prove(number, damaged(tensors()) | headers(), check, found)


@pytest.mark.parametrize("protocol", range(6))
def test_a_pickle_of_any_protocol_is_refused_unread(protocol, tmp_path):
    place = Place.of(tmp_path, "alexnet.pth")
    harm = pickle.dumps(Harm(str(tmp_path / "outer" / "harmed")), protocol=protocol)

    def read():
        return import_torch(place.path, "alexnet", place.path.with_name("out.h5"))

    refused = survives(place, harm, read)
    assert "pickle" in str(refused) or "expected a safetensors file" in str(refused)
    pickle.loads(harm)
    assert (tmp_path / "outer" / "harmed").exists()  # the control: it would have done harm


def test_what_is_drawn_reaches_the_tensors(tmp_path):
    place = Place.of(tmp_path, "alexnet.safetensors")
    refused = survives(
        place, tensors(), lambda: import_torch(place.path, "alexnet", tmp_path / "out.h5")
    )
    assert "does not fit AlexNetOWT:\n  conv2: expected" in str(refused)  # conv1 fits
