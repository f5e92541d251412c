"""The guard of NUMERICS: a change of what computes stored activations needs a decision."""

import ast

import pytest
from import_graph import import_graph, parse_modules
from numerics import RECORD, changed_modules, digest_of_source, renewed, report

from kerasft.activations.numerics import DIGESTS, NUMERICS

# Reached from what fills a store, and yet without a say in its numbers: names of files and
# settings, progress, weights (their digest is in the key).
NOT_DECIDING = {
    "activations.context",
    "activations.eviction",
    "activations.keys",
    "activations.numerics",
    "data.source",
    "data.threads",
    "heads.co_tuning",
    "heads.estimators",
    "heads.methods",
    "heads.solved",
    "heads.sums",
    "models.bundle",
    "models.net",
    "models.tta",
    "models.weights",
}
DECIDING_PACKAGES = ("activations", "data", "heads", "models", "pixels")

SOURCE = '''
"""A module."""

import math

LIMIT = 1.5
"""Describes the constant."""


def scaled(values: list[float], *, by: float = 2.0) -> list[float]:
    """Scales."""
    return [f"{v * by:.2f}" if v < LIMIT else None for v in values]  # a comment
'''


def test_what_computes_stored_activations_is_as_it_was_when_numerics_was_decided():
    if problem := report(changed_modules(RECORD.read_text("utf-8"))):
        pytest.fail(problem, pytrace=False)


def test_every_module_that_fills_a_store_is_guarded_or_known_to_decide_nothing():
    graph = import_graph(parse_modules())
    seen, waiting = set(), {"activations.prefix_pass", "models.build"}
    while waiting:
        module = waiting.pop()
        seen.add(module)
        waiting |= graph[module] - seen
    reached = {name for name in seen if name.startswith(DECIDING_PACKAGES)}
    assert reached - set(DIGESTS) == NOT_DECIDING
    assert set(DIGESTS) <= seen


def test_every_version_of_python_gives_the_same_digest():
    assert digest_of_source(SOURCE) == "5c3197f4ee0abef0"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("A module.", "The module."),
        ("  # a comment", ""),
        ("values: list[float], *, by: float", "values, *, by"),
        (" -> list[float]", ""),
        ('"""Describes the constant."""\n', ""),
        ("if v < LIMIT", "if (v < LIMIT)"),
    ],
)
def test_words_and_annotations_do_not_count(old, new):
    assert old in SOURCE
    assert digest_of_source(SOURCE.replace(old, new)) == digest_of_source(SOURCE)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("LIMIT = 1.5", "LIMIT = 1.6"),
        ("v * by", "v / by"),
        ("v * by", "by * v"),
        (":.2f", ":.3f"),
        ("v < LIMIT", "v <= LIMIT"),
        ("else None", "else 0"),
        ("by: float = 2.0", "by: float"),
        ("*, by", "by"),
        ("import math", "import cmath as math"),
    ],
)
def test_whatever_may_change_a_number_counts(old, new):
    assert old in SOURCE
    assert digest_of_source(SOURCE.replace(old, new)) != digest_of_source(SOURCE)


@pytest.fixture
def package(tmp_path):
    (tmp_path / "pixels").mkdir()
    (tmp_path / "pixels" / "images.py").write_text("SIDE = 32\n")
    return tmp_path


RECORDED = """NUMERICS = 4  # a comment

DIGESTS = {
    "pixels.images": "",
    "pixels.gone": "a1",
}
"""


def test_a_decision_is_written_down_by_one_command(package):
    changed = changed_modules(RECORDED, package)
    assert list(changed) == ["pixels.images", "pixels.gone"]
    same = renewed(RECORDED, changed, numbers_changed=False)
    digest = digest_of_source("SIDE = 32\n")
    assert same.splitlines()[2:] == ["DIGESTS = {", f'    "pixels.images": "{digest}",', "}"]
    assert changed_modules(same, package) == {}
    other = renewed(RECORDED, changed, numbers_changed=True)
    assert other == same.replace("NUMERICS = 4", "NUMERICS = 5")


def test_the_message_names_the_modules_and_both_decisions(package):
    assert report(changed_modules(RECORDED, package)) == (
        "Code that computes stored activations changed: pixels.images, pixels.gone.\n"
        "Do the same photo, view and weights still give the same numbers, bit for bit?\n"
        "  yes: python scripts/numerics.py --write\n"
        "  no:  python scripts/numerics.py --raise"
    )
    assert report({}) == ""


def test_the_record_is_python_that_says_the_same():
    tree = ast.parse(RECORD.read_text("utf-8"))
    assigned = {ast.unparse(n.targets[0]): n.value for n in tree.body if isinstance(n, ast.Assign)}
    assert ast.literal_eval(assigned["NUMERICS"]) == NUMERICS >= 1
    assert ast.literal_eval(assigned["DIGESTS"]) == DIGESTS
