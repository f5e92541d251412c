"""Exports of every format are served alike: the same photo has the same label and score."""

import numpy as np
import pytest
from encoded import PHOTO, blocks, encode
from served import exported_run, open_once
from small_run import NAMES, small_bundle

from kerasft.export.facts import ExportFacts, write_facts
from kerasft.export.formats import EXPORTERS
from kerasft.serving.signatures import open_model

FILES = [PHOTO, b"hello", encode(blocks(), "PNG")]


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """Opens the small model in a format."""
    bundle = small_bundle()

    def served(format):
        row = EXPORTERS[format]
        for package in (*row.writing, *row.opening):
            pytest.importorskip(package)
        folder = tmp_path_factory.mktemp(format)
        facts = ExportFacts.of(bundle, format)
        row.write(bundle, folder, facts, None)
        write_facts(folder, facts)
        return open_model(row, folder)

    return served


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """The answers of the SavedModel of the same small model."""
    version = exported_run(tmp_path_factory.mktemp("served")) / "export" / "1"
    model = open_once(EXPORTERS["saved-model"], version)
    return model.signatures["serving_default"].compute(FILES)


@pytest.mark.parametrize("format", [name for name in EXPORTERS if name != "saved-model"])
def test_a_format_answers_as_the_savedmodel_does(served, reference, format):
    model = served(format)
    rows = model.signatures["serving_default"].compute(FILES)
    assert (model.format, tuple(model.class_names)) == (EXPORTERS[format].label, NAMES)
    assert rows[1] == reference[1]
    assert rows[1]["error"] == "The file is not a JPEG, PNG, GIF, BMP or WebP image."
    for row, other in ((rows[0], reference[0]), (rows[2], reference[2])):
        assert row["top_label"] == other["top_label"]
        np.testing.assert_allclose(row["scores"], other["scores"], atol=1e-4)
        assert (list(row["labels"]), row["error"]) == (list(NAMES), "")
    pixels = np.full((32, 32, 3), 100, "float32")
    [row] = model.signatures["serve_pixels"].compute([pixels])
    assert row["scores"].shape == (3,)
    described = model.metadata["signature_def"]["signature_def"]
    assert set(described) == set(model.signatures)
    default = described["serving_default"]
    assert default["inputs"]["image_bytes"]["dtype"] == "DT_STRING"
    dtypes = {name: one["dtype"] for name, one in default["outputs"].items()}
    assert dtypes["scores"] == "DT_FLOAT" and dtypes["labels"] == dtypes["error"] == "DT_STRING"
    dims = [{"size": "-1", "name": ""}, {"size": "3", "name": ""}]
    assert default["outputs"]["labels"]["tensor_shape"]["dim"] == dims
    assert default["outputs"]["error"]["tensor_shape"]["dim"] == dims[:1]
