"""Damaged and hostile entries of a comparison: read as they are, or made again."""

import json
from dataclasses import replace

from damaged import Place, as_json, cases, documents, prove, survives

from kerasft.compare.entry import Entry, SplitResult, TriedSetting
from kerasft.compare.request import Trial
from kerasft.compare.trials import _read_entry
from kerasft.metrics import Figures

RIGHT = (True, False, True, True)
ENTRY = Entry(
    Trial(0, 0.5, "MobileNetV2", "linear"),
    note="scored on 3 of 5 classes",
    classes=5,
    validation=SplitResult(Figures(0.75, 0.4, 4), RIGHT),
    test=SplitResult(Figures(0.75, 0.5, 4), RIGHT),
    macro_f1=0.7,
    seconds=1.5,
    ms_per_image=2.5,
    converged=True,
    settings={"learning_rate": 0.001},
    tried=(TriedSetting({"learning_rate": 0.001}, 0.75, 0.4, 1.5, 0.5, True),),
    notes=("a note",),
    run="runs/one",
)


@cases
def test_a_damaged_entry_is_read_or_made_again(number, tmp_path):
    place = Place.of(tmp_path, "entry.json")
    place = replace(place, may_write=(place.path.parent,))
    good = ENTRY.to_json()
    place.path.write_text(json.dumps(good))
    assert _read_entry(place.path) == ENTRY

    def is_entry(entry):
        if entry is None:  # it is made again, so the file is gone
            return not place.path.exists()
        return isinstance(entry, Entry) and bool(json.dumps(entry.to_json()))

    found = [
        as_json({**good, "notes": "@deep@"}),  # was a RecursionError
        as_json({**good, "seconds": "soon"}),
        as_json({**good, "tried": [1]}),
        as_json({**good, "val_right": {"0": 1}}),
    ]
    prove(
        number,
        documents(good),
        lambda content: survives(place, content, lambda: _read_entry(place.path), is_entry),
        found,
    )
