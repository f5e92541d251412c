"""The rows that describe the fields, and configs/FIELDS.md, which is written from them."""

import pytest
import write_fields

from kerasft.config.fields import Config
from kerasft.config.listing import FieldRow, list_fields
from kerasft.errors import UserError


def row(name):
    ((found,),) = [one.fields for one in list_fields(name)]
    return found


def test_a_field_is_listed_with_type_range_default_and_description():
    assert row("data.validation") == FieldRow(
        name="data.validation",
        type="float",
        range="0 < x <= 0.5",
        default=0.15,
        required=False,
        description="Share of the images in the validation split, which chooses the best epoch "
        "and phase.",
    )


@pytest.mark.parametrize(
    ("name", "kind", "condition", "default"),
    [
        ("seed", "int", ">= 0", 0),
        ("data.source", "str", "", None),
        ("augment.flip", "bool", "", True),
        ("augment.views", "int", "0 <= x <= 100", None),
        ("head.hidden", "list of int", "", []),
        ("phases.blocks", 'int or "all"', ">= 0", None),
        ("phases.optimizer", '"adam", "adamw" or "sgd"', "", "adam"),
        ("phases.learning_rate", "float", "> 0", None),
    ],
)
def test_types_and_ranges_are_those_that_the_config_checks(name, kind, condition, default):
    found = row(name)
    assert (found.type, found.range, found.default) == (kind, condition, default)


def test_required_fields_are_told_from_those_that_are_not_set():
    assert row("data.source").required
    assert not row("model.image_size").required


def test_all_sections_are_listed_in_the_order_of_the_config():
    sections = list_fields()
    names = [one.section for one in sections]
    assert names == ["", "data", "model", "head", "augment", "cache", "phases", "phases"]
    assert set(names) - {""} == set(Config.model_fields) - {
        "seed",
        "device",
        "tensorboard",
        "calibrate",
        "report",
    }
    assert all(one.description.endswith(".") for one in sections)


def test_every_description_is_a_sentence_that_can_be_read_alone():
    for section in list_fields():
        for one in section.fields:
            assert one.description[0].isupper() and one.description.endswith((".", "...")), one


def test_a_section_or_a_field_is_listed_alone():
    assert [one.name for one in list_fields("cache")[0].fields] == [
        "cache.mode",
        "cache.engine",
        "cache.batch",
        "cache.precision",
        "cache.dtype",
    ]
    trained, solved = list_fields("phases")
    assert trained.fields[-1].name == solved.fields[-1].name == "phases.N.stored"


@pytest.mark.parametrize("name", ["ema", "phases.ema", "phases.N.ema", "phases.0.ema"])
def test_a_field_of_a_phase_is_found_however_it_is_written(name):
    assert row(name).name == "phases.N.ema"


@pytest.mark.parametrize(
    ("name", "near"), [("augmnt", "augment"), ("data.sorce", "data.source"), ("emma", "ema")]
)
def test_an_unknown_name_is_refused_with_the_nearest_one(name, near):
    with pytest.raises(UserError) as refused:
        list_fields(name)
    assert str(refused.value) == (
        f"fields: no section and no field is called '{name}'. The sections are data, model, "
        f"head, augment, cache, phases. Did you mean '{near}'?"
    )
    assert refused.value.exit_code == 2


def test_fields_md_is_up_to_date():
    written = write_fields.FIELDS.read_text("utf-8")
    assert written == write_fields.to_markdown(), "run: python scripts/write_fields.py"
