"""The list of mutants: counted, and explained where they live."""

import ast
import re

from mutants import RESULTS, TESTS, _keyword_only, _left_out, changed


def test_at_least_95_of_100_mutants_are_killed_and_the_others_are_explained():
    text = RESULTS.read_text("utf-8")
    killed, lived = (
        re.findall(rf"\| {word}: (.+) \|$", text, re.M) for word in ("killed", "lived")
    )
    total = re.search(r"\*\*(\d+) mutants: (\d+) killed, (\d+) lived, of these (\d+) equiv", text)
    equivalent = [reason for reason in lived if reason.startswith("equivalent")]
    counts = [len(killed) + len(lived), len(killed), len(lived), len(equivalent)]
    assert [int(number) for number in total.groups()] == counts
    assert len(killed) + len(equivalent) >= 0.95 * counts[0]
    assert "not explained yet" not in text
    assert re.findall("^## (.+)$", text, re.M) == list(TESTS)


def test_what_only_a_type_checker_reads_is_left_out():
    code = "A = int | str\nif TYPE_CHECKING:\n    import b\n"
    code += "def f(x: int | None = 1) -> A | None: ...\n"
    left_out = sorted(_left_out(ast.parse(code)))
    assert left_out == [((1, 4), (1, 13)), ((2, 0), (3, 12)), ((4, 9), (4, 19)), ((4, 28), (4, 36))]


def test_the_star_of_a_signature_is_no_multiplication():
    assert _keyword_only("def f(a, *, b): return a * b") == 1
    assert _keyword_only("def f(a, /, b): return a * b") == 0


def test_a_mutant_is_told_by_its_first_line_and_all_lines_that_differ():
    assert changed("a\nb\nc\n", "a\nB\nc\n") == (2, "b", "B")
    assert changed("@a\ndef b(): ...\n", "def b(): ...\n") == (1, "@a", "")
