import pytest

from kerasft.cli_shared import print_result


def test_text_is_what_a_function_makes_of_the_result(capsys):
    print_result({"n": 3}, lambda result: f"{result['n']} images", as_json=False)
    assert capsys.readouterr().out == "3 images\n"


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_a_number_that_json_lacks_is_null_wherever_it_is(number, capsys):
    print_result({"a": [{"b": number}, (1.5, number)]}, str, as_json=True)
    assert capsys.readouterr().out == '{"a": [{"b": null}, [1.5, null]]}\n'
