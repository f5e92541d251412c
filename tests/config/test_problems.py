from pathlib import Path

import pytest
from pydantic import BaseModel, ConfigDict, Field, StrictInt, ValidationError

from kerasft.config.problems import Problem, from_pydantic, repeated_names, report, shown


class Wheel(BaseModel):
    model_config = ConfigDict(extra="forbid")
    spokes: StrictInt = Field(default=32, gt=0)


class Bicycle(BaseModel):
    model_config = ConfigDict(extra="forbid")
    gears: StrictInt = 1
    front: Wheel = Wheel()
    phases: tuple[Wheel, ...] = ()


def lines_for(tree, **origins):
    with pytest.raises(ValidationError) as error:
        Bicycle.model_validate(tree)
    places = {tuple(key.split("_")): origin for key, origin in origins.items()}
    return [str(problem) for problem in from_pydantic(error.value, Bicycle, origins=places)]


def test_a_place_reads_as_people_write_it():
    assert shown(("phases", 0, "epochs")) == "phases[0].epochs"
    assert shown(("seed",)) == "seed"


def test_a_problem_names_the_argument_that_brought_it():
    assert str(Problem(("seed",), "expected int, got 'x'.")) == "seed: expected int, got 'x'."
    assert str(Problem(("seed",), "wrong.", "flags")) == ("seed (`flags`): wrong.")
    assert str(Problem((), "wrong.", "sets")) == "`sets`: wrong."
    assert str(Problem((), "wrong.")) == "wrong."


def test_every_wrong_key_is_a_sentence():
    assert lines_for({"gears": "3", "front": {"spokes": 0}, "phases": [{"spokes": 1.5}]}) == [
        "gears: expected int, got '3'.",
        "front.spokes: expected more than 0, got 0.",
        "phases[0].spokes: expected int, got 1.5.",
    ]


def test_an_unknown_key_is_compared_with_those_of_its_section():
    assert lines_for({"front": {"spoke": 3}}) == [
        "front.spoke: unknown key. Did you mean 'spokes'?"
    ]
    assert lines_for({"fornt": {}}) == ["fornt: unknown key. Did you mean 'front'?"]


def test_a_key_of_another_section_is_found_there():
    assert lines_for({"spokes": 3}) == ["spokes: unknown key. Did you mean 'front.spokes'?"]


def test_an_unknown_key_that_is_like_no_other_gets_no_suggestion():
    assert lines_for({"zzz": 3, "phases": [{"qqq": 1}]}) == [
        "phases[0].qqq: unknown key.",
        "zzz: unknown key.",
    ]


def test_a_table_where_a_list_of_tables_belongs_says_how_to_write_one():
    assert lines_for({"phases": {"spokes": 3}}) == [
        "phases: expected a list of sections: write [[phases]] above each of them."
    ]


def test_a_long_value_is_cut_short():
    assert lines_for({"gears": "x" * 100}) == [f"gears: expected int, got '{'x' * 56}...."]


def test_problems_from_options_come_after_those_of_the_file():
    assert lines_for({"gears": "3", "front": {"spokes": 0}}, gears="sets") == [
        "front.spokes: expected more than 0, got 0.",
        "gears (`sets`): expected int, got '3'.",
    ]


def test_an_argument_is_to_blame_for_the_section_that_it_made_up():
    assert lines_for({"fornt": {"spokes": 3}}, fornt_spokes="sets") == [
        "fornt (`sets`): unknown key. Did you mean 'front'?"
    ]


def test_names_that_an_earlier_phase_has_are_found_beside_other_faults():
    found = repeated_names([{"name": "a"}, {"name": "b"}, {"name": "a"}, {}, {"name": 5}, 7])
    assert [str(problem) for problem in found] == [
        "phases[2].name: phases[0] is already called 'a'."
    ]


@pytest.mark.parametrize(
    ("origins", "path", "heading"),
    [
        ([""], Path("mine.toml"), "mine.toml has 1 problem:"),
        (["", ""], Path("mine.toml"), "mine.toml has 2 problems:"),
        (["sets"], Path("mine.toml"), "the options have 1 problem:"),
        (["", "sets"], Path("mine.toml"), "mine.toml and the options have 2 problems:"),
        ([""], None, "the options have 1 problem:"),
    ],
)
def test_the_heading_says_where_and_how_many(origins, path, heading):
    problems = [Problem(("seed",), "wrong.", origin) for origin in origins]
    assert report(problems, path).splitlines()[0] == heading


def test_a_report_has_a_line_for_each_problem():
    problems = [Problem(("seed",), "wrong."), Problem((), "worse.", "sets")]
    assert report(problems, Path("a.toml")) == (
        "a.toml and the options have 2 problems:\n  seed: wrong.\n  `sets`: worse."
    )
