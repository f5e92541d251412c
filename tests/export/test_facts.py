"""What an export says about itself is read as it was written, and later forms are refused."""

import json
from dataclasses import replace

import pytest

from kerasft.errors import UserError
from kerasft.export.facts import ExportFacts, read_facts, write_facts
from kerasft.export.formats import EXPORTERS, row_of
from kerasft.input_rule import InputRule

FACTS = ExportFacts(
    format="litert",
    quantize="int8",
    class_names=("Ärzte", "bee, wild"),
    rule=InputRule(160, "pad", (255, 255, 255), 12),
    threshold=0.75,
    temperature=1.5,
    licence="MIT",
    model_digest="0a1b",
    versions={"kerasft": "0.2.0"},
)


def test_the_file_says_what_a_program_without_kerasft_needs(tmp_path):
    write_facts(tmp_path, FACTS)
    assert json.loads((tmp_path / "kerasft.json").read_text("utf-8")) == {
        "kerasft": 1,
        "format": "litert",
        "quantize": "int8",
        "class_names": ["Ärzte", "bee, wild"],
        "image_size": 160,
        "resize": "pad",
        "background": [255, 255, 255],
        "depth": 12,
        "color_order": "RGB",
        "value_range": [0, 255],
        "threshold": 0.75,
        "temperature": 1.5,
        "licence": "MIT",
        "model_digest": "0a1b",
        "versions": {"kerasft": "0.2.0"},
    }
    assert (tmp_path / "labels.txt").read_text("utf-8") == "Ärzte\nbee, wild\n"
    assert read_facts(tmp_path) == FACTS


def test_a_model_that_always_answers_has_no_threshold(tmp_path):
    plain = replace(FACTS, threshold=None, quantize=None)
    write_facts(tmp_path, plain)
    assert read_facts(tmp_path) == plain


def test_a_later_form_is_refused(tmp_path):
    write_facts(tmp_path, FACTS)
    later = json.loads((tmp_path / "kerasft.json").read_text("utf-8"))
    later |= {"kerasft": 2, "versions": {"kerasft": "9.0"}}
    (tmp_path / "kerasft.json").write_text(json.dumps(later))
    with pytest.raises(UserError, match=r"was exported by kerasft 9\.0, .* Update kerasft\."):
        read_facts(tmp_path)


@pytest.mark.parametrize("content", ["", "[]", '{"kerasft": 1, "format": "litert"}', "\x00"])
def test_a_damaged_file_is_named(tmp_path, content):
    (tmp_path / "kerasft.json").write_text(content)
    with pytest.raises(UserError, match=r"kerasft\.json: is damaged \(.*\)\. Export again\."):
        read_facts(tmp_path)


def test_a_format_that_is_unknown_or_cannot_be_quantized_so_is_refused_with_what_can():
    with pytest.raises(UserError, match="expected one of saved-model") as one:
        row_of("savedmodel")
    with pytest.raises(UserError, match=r"SavedModel is not written in int8\. int8 is") as two:
        row_of("saved-model", "int8")
    assert (one.value.exit_code, two.value.exit_code) == (2, 2)


def test_a_missing_package_is_named_with_the_command_that_installs_it():
    row = replace(EXPORTERS["saved-model"], label="NCNN", extra="ncnn")
    row.require(("json",))
    with pytest.raises(UserError) as caught:
        row.require(("json", "no_such_package", "nor_this"))
    assert str(caught.value) == (
        "NCNN needs no_such_package and nor_this, which are not installed. Install what it needs: "
        "pip install 'kerasft[ncnn]'."
    )
