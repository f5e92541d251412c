"""Damaged and hostile kerasft.json of exports: read as what they say, or refused in plain text."""

import json

from damaged import Place, as_json, cases, documents, prove, survives

from kerasft.export.facts import FILE, ExportFacts, read_facts
from kerasft.input_rule import InputRule

PLAIN = ExportFacts("saved-model", None, ("cat", "dog"), InputRule(32))
INT8 = ExportFacts(
    format="litert",
    quantize="int8",
    class_names=("a", "b", "c"),
    rule=InputRule(224, "pad", (255, 255, 255), 16),
    threshold=0.75,
    temperature=1.5,
    licence="unknown",
    model_digest="0" * 32,
    versions={"kerasft": "0.2.0"},
)
GOOD = [json.loads(facts.to_text()) for facts in (PLAIN, INT8)]


def changed(**facts):
    return as_json({**GOOD[1], **facts})


FOUND = [
    changed(image_size=float("inf")),  # was an OverflowError
    changed(licence="@deep@"),  # a RecursionError
    changed(image_size=2**60),  # believed
    changed(class_names="abc"),  # three classes
    changed(resize="stretched"),
    changed(threshold="0.5"),
    changed(versions=[["kerasft", "9"]]),
    changed(kerasft=True),
    b"[]",
]


def are_facts(facts):
    return (
        isinstance(facts, ExportFacts)
        and all(type(name) is str for name in facts.class_names)
        and type(facts.temperature) in (int, float)
        and 0 < facts.rule.image_size <= 2**14
        and isinstance(facts.to_text().encode(), bytes)
    )


@cases
def test_a_damaged_kerasft_json_is_facts_or_one_refusal(number, tmp_path):
    place = Place.of(tmp_path, FILE)

    def check(content):
        survives(place, content, lambda: read_facts(place.path.parent), are_facts)

    for good, facts in zip(GOOD, (PLAIN, INT8), strict=True):
        place.path.write_text(json.dumps(good))
        assert read_facts(place.path.parent) == ExportFacts(**{**vars(facts)})
    prove(number, documents(*GOOD), check, FOUND)
