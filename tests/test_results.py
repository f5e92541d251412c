"""Results become JSON: their fields by name, in order."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kerasft.results import Result, plain


@dataclass(frozen=True)
class Inner(Result):
    share: np.float32
    names: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Outer(Result):
    path: Path
    inner: tuple[Inner, ...]
    matrix: np.ndarray
    by_name: dict[str, Inner]
    missing: float | None = None


def test_a_result_is_an_object_of_its_fields_in_order():
    inner = Inner(np.float32(0.5), ("a", "b"))
    result = Outer(Path("runs") / "a", (inner,), np.eye(2, dtype=int), {"x": inner})
    assert json.dumps(result.to_json()) == (
        '{"path": "runs/a", "inner": [{"share": 0.5, "names": ["a", "b"]}], '
        '"matrix": [[1, 0], [0, 1]], "by_name": {"x": {"share": 0.5, "names": ["a", "b"]}}, '
        '"missing": null}'
    )


def test_what_json_has_stays_as_it_is():
    assert plain(["a", 1, 2.5, True, None, {"b": ()}]) == ["a", 1, 2.5, True, None, {"b": []}]
