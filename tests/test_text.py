import re
from pathlib import Path

import pytest

from kerasft import text as text_module
from kerasft.cli.cache import parse_size
from kerasft.errors import UserError
from kerasft.text import agreeing, cell, class_table, count, in_line, size_text


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 bytes"),
        (1, "1 byte"),
        (999, "999 bytes"),
        (1000, "1.0 kB"),
        (36_200_000, "36.2 MB"),
        (20 * 10**9, "20.0 GB"),
        (1_500_000_000_000, "1.5 TB"),
        (12_345_000_000_000_000, "12345.0 TB"),
    ],
)
def test_a_size_has_a_digit_after_the_point_and_a_unit_of_a_power_of_ten(size, text):
    assert size_text(size) == text


def test_what_rounds_to_a_thousand_takes_the_next_unit():
    assert size_text(999_949) == "999.9 kB"
    assert size_text(999_950) == "1.0 MB"


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("20GB", 20_000_000_000),
        ("500MB", 500_000_000),
        ("1.5TB", 1_500_000_000_000),
        ("1.1 gb", 1_100_000_000),
        ("3kB", 3_000),
        ("12B", 12),
        ("123456", 123456),
        ("0", 0),
    ],
)
def test_a_size_can_be_typed_with_or_without_a_unit(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text", ["", "GB", "twenty", "20GiB", "20 G", "-5GB", "1e9", "1,5GB", "inf", "9" * 400, "٣GB"]
)
def test_what_is_no_size_is_refused_with_what_was_expected(text):
    with pytest.raises(UserError) as refused:
        parse_size(text)
    assert str(refused.value) == (
        "SIZE: expected a number with kB, MB, GB or TB, such as 20GB, or plain bytes, "
        f"got '{text}'."
    )
    assert refused.value.exit_code == 2


@pytest.mark.parametrize(
    ("number", "noun", "verb", "text"),
    [
        (1, "file", "are", "1 file is"),
        (2, "file", "are", "2 files are"),
        (0, "file", "are", "0 files are"),
        (1, "class", "have", "1 class has"),
        (1200, "class", "have", "1,200 classes have"),
        (1, "near copy", "", "1 near copy"),
        (3, "near copy", "", "3 near copies"),
        (["a"], "photo", "keep", "1 photo keeps"),
    ],
)
def test_noun_and_verb_agree_with_the_number(number, noun, verb, text):
    assert count(number, noun, verb) == text


@pytest.mark.parametrize(
    ("number", "verb", "text"), [(1, "do", "does"), (2, "do", "do"), (1, "hold", "holds")]
)
def test_a_verb_agrees_with_a_number_that_stands_further_ahead(number, verb, text):
    assert agreeing(number, verb) == text


def test_no_message_has_a_verb_in_the_plural_behind_a_number():
    # A count in braces, at most two words, and the verb: what `count` and `agreeing` are for.
    wrong = re.compile(r"(:,|len\([^{}]*\))\}(?: [a-z]+){0,2} (are|have|do|hold|keep)\b")
    found = [
        f"{path.name}: {line.strip()}"
        for path in sorted(Path(text_module.__file__).parent.rglob("*.py"))
        for line in path.read_text("utf-8").splitlines()
        if wrong.search(line) and "bytes are" not in line
    ]
    assert found == []


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1"])
def test_a_text_in_a_table_is_never_a_formula(text):
    assert cell(text) == f"'{text}"


@pytest.mark.parametrize("value", ["svm", "1-2", "", -1.5, 0, None, True])
def test_other_values_stay_as_they_are(value):
    assert cell(value) is value


def test_a_table_of_classes_has_a_line_for_each_and_adds_up_those_after_the_nineteenth():
    counts = {f"c{n:02}": {"train": 1000, "validation": n, "test": 0} for n in range(22)}
    assert class_table({name: counts[name] for name in ("c00", "c12")}) == [
        "class   train  validation    test",
        "c00     1,000           0       0",
        "c12     1,000          12       0",
    ]
    lines = class_table(counts)
    assert (len(lines), lines[-2]) == (21, "c18      1,000          18       0")
    assert lines[-1] == "3 more   3,000          60       0"
    assert len(class_table(dict(list(counts.items())[:20]))) == 21


def test_names_in_a_line_end_with_the_number_of_further_ones():
    assert in_line(["a", "b\a", "c"], 2) == "a, b\\x07 and 1 more"
    assert in_line(["a", "b"], 2) == "a, b"


def test_long_class_names_keep_their_rows_and_the_table_its_80_columns():
    lines = class_table({"n" * 200 + end: {"train": 3, "validation": 1, "test": 1} for end in "ab"})
    assert lines[1:] == [f"{'n' * 48}...       3           1       1"] * 2
    assert max(map(len, lines)) <= 80
