import datetime
from pathlib import Path

import pytest

from kerasft.config.overrides import Override, make_absolute, parse_options, put_over, read_toml
from kerasft.config.problems import Problem
from kerasft.errors import UserError

# ── files ──


def test_a_file_with_a_byte_order_mark_and_windows_line_ends_is_read(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_bytes(b"\xef\xbb\xbfseed = 3\r\n[head]\r\nhidden = [256]\r\n")
    assert read_toml(path) == {"seed": 3, "head": {"hidden": [256]}}


def refusal(path):
    with pytest.raises(UserError) as refused:
        read_toml(path)
    assert refused.value.exit_code == 2
    return str(refused.value)


def test_a_file_that_is_not_there_is_named(tmp_path):
    assert refusal(tmp_path / "mine.toml") == f"{tmp_path / 'mine.toml'}: no such file."


def test_a_folder_is_not_a_file(tmp_path):
    assert refusal(tmp_path) == f"{tmp_path} can't be read: Is a directory."


def test_a_picture_is_not_a_config(tmp_path):
    path = tmp_path / "cat.jpg"
    path.write_bytes(b"\xff\xd8\xff\xe0")
    assert refusal(path) == f"{path} is not a TOML file: not UTF-8 text."


def test_wrong_toml_is_named_with_line_and_column(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text("seed = 1\nhead hidden\n")
    assert refusal(path) == (
        f"{path} has 1 problem:\n"
        "  Expected '=' after a key in a key/value pair (at line 2, column 6)."
    )


# ── paths ──


def absolute(tree, folder):
    make_absolute(tree, folder)
    return tree


def test_paths_are_resolved_against_the_folder(tmp_path):
    tree = {"data": {"source": "../photos"}, "model": {"weights": "nets/a.h5"}}
    assert absolute(tree, tmp_path / "configs") == {
        "data": {"source": str(tmp_path / "photos")},
        "model": {"weights": str(tmp_path / "configs" / "nets" / "a.h5")},
    }


def test_words_and_absolute_paths_stay(tmp_path):
    source = str(tmp_path / "photos")
    tree = {"data": {"source": source}, "model": {"weights": "none"}}
    assert absolute(tree, tmp_path) == {"data": {"source": source}, "model": {"weights": "none"}}


def test_a_folder_that_is_a_link_is_followed(tmp_path):
    (tmp_path / "far" / "configs").mkdir(parents=True)
    (tmp_path / "configs").symlink_to(tmp_path / "far" / "configs")
    tree = absolute({"data": {"source": "../photos"}}, tmp_path / "configs")
    assert tree == {"data": {"source": str(tmp_path / "far" / "photos")}}


@pytest.mark.parametrize("tree", [{}, {"data": 5}, {"data": {"source": 5}}, {"data": {}}])
def test_what_is_no_path_is_left_for_the_check(tree, tmp_path):
    assert absolute(dict(tree), tmp_path) == tree


# ── options ──


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a=5", 5),
        ("a=1e-3", 0.001),
        ("a=true", True),
        ("a=[256, 128]", [256, 128]),
        ("a='sgd'", "sgd"),
        ("a=sgd", "sgd"),
        ("a=", ""),
        ("a=b=c", "b=c"),
        ("a=2024-05-01", "2024-05-01"),
        ("a=1\nb=2", "1\nb=2"),
    ],
)
def test_the_value_of_set_is_toml_or_else_text(text, value):
    assert parse_options({}, [text]) == ([Override(("a",), value, "sets")], [])


def test_numbers_in_keys_are_positions():
    given, _ = parse_options({}, ["phases.-1.epochs=5", "phases.10.epochs=5"])
    assert [one.place for one in given] == [("phases", -1, "epochs"), ("phases", 10, "epochs")]


def test_a_value_knows_its_argument_and_flags_come_before_sets():
    flags = {"data.source": "photos", "model.image_size": 96, "phases.0.epochs": 5}
    given, _ = parse_options(flags, ["seed=1"])
    assert [one.origin for one in given] == ["flags", "flags", "flags", "sets"]


@pytest.mark.parametrize("text", ["epochs", "=5", "a..b=5", ".a=5"])
def test_what_is_not_key_and_value_is_a_problem(text):
    assert parse_options({}, [text]) == (
        [],
        [Problem((), f"expected KEY=VALUE, e.g. phases.0.epochs=5, got '{text}'.", "sets")],
    )


def put(tree, *sets):
    given, _ = parse_options({}, sets)
    origins, problems = put_over(tree, given)
    return tree, origins, [str(problem) for problem in problems]


def test_values_are_put_into_sections_that_are_there_and_new_ones():
    tree, origins, problems = put({"head": {"dropout": 0.1}}, "head.dropout=0.5", "a.b=1")
    assert tree == {"head": {"dropout": 0.5}, "a": {"b": 1}}
    assert origins == {("head", "dropout"): "sets", ("a", "b"): "sets"}
    assert problems == []


def test_the_last_of_two_values_holds():
    assert put({}, "seed=1", "seed=2")[0] == {"seed": 2}


def test_a_negative_position_counts_from_the_end():
    tree, origins, _ = put({"phases": [{}, {}]}, "phases.-1.epochs=5")
    assert tree == {"phases": [{}, {"epochs": 5}]}
    assert origins == {("phases", 1, "epochs"): "sets"}


@pytest.mark.parametrize(
    ("tree", "text", "problem"),
    [
        (
            {"phases": [{}, {}]},
            "phases.2.epochs=5",
            "phases[2].epochs (`sets`): no such field: phases has 2 entries, counted from 0.",
        ),
        (
            {"phases": [{}]},
            "phases.-2.epochs=5",
            "phases[-2].epochs (`sets`): no such field: phases has 1 entry, counted from 0.",
        ),
        (
            {"phases": [{}]},
            "phases.head.epochs=5",
            "phases.head.epochs (`sets`): no such field: phases has 1 entry, counted from 0.",
        ),
        (
            {},
            "head.hidden.0=5",
            "head.hidden[0] (`sets`): no such field: head.hidden has 0 entries, counted from 0.",
        ),
        (
            {"phases": {"name": "a"}},
            "phases.0.epochs=5",
            "phases[0].epochs (`sets`): no such field: phases is not a list.",
        ),
        ({"seed": 3}, "seed.x=5", "seed.x (`sets`): no such field: seed is not a section."),
        ({}, "0=5", "[0] (`sets`): no such field: a key begins with a name."),
    ],
)
def test_a_place_that_there_cannot_be_is_a_problem(tree, text, problem):
    assert put(tree, text)[1:] == ({}, [problem])


def test_a_path_object_is_taken_as_a_path(tmp_path):
    assert absolute({"data": {"source": Path("photos")}}, tmp_path) == {
        "data": {"source": str(tmp_path / "photos")}
    }


def test_dates_in_a_file_are_left_for_the_check(tmp_path):
    (tmp_path / "mine.toml").write_text("seed = 2024-05-01\n")
    assert read_toml(tmp_path / "mine.toml") == {"seed": datetime.date(2024, 5, 1)}
