import pickle

from kerasft.errors import UserError, did_you_mean
from kerasft.text import quoted


def test_a_user_error_is_its_message_and_exits_with_1():
    error = UserError("photos: is empty.")
    assert (str(error), error.exit_code) == ("photos: is empty.", 1)


def test_what_a_message_quotes_can_be_shown_whatever_it_is():
    error = UserError("a.csv: got \x1b[2J\x07, \ud800 and\n  " + "x" * 5_000 + ".")
    assert error.message == "a.csv: got \\x1b[2J\\x07, \\ud800 and\n  " + "x" * 200 + "..."
    assert str(UserError("Ä: 1,5 µm \N{LATIN SMALL LETTER SHARP S}")) == "Ä: 1,5 µm ß"


def test_what_the_user_typed_exits_with_2():
    assert UserError("no such folder.", exit_code=2).exit_code == 2


def test_a_near_miss_is_suggested():
    assert did_you_mean("backbon", ["backbone", "weights"]) == " Did you mean 'backbone'?"


def test_case_does_not_count_and_the_right_spelling_is_shown():
    assert did_you_mean("mobilenetv2", ["ResNet50", "MobileNetV2"]) == (
        " Did you mean 'MobileNetV2'?"
    )


def test_nothing_near_suggests_nothing():
    assert did_you_mean("zzz", ["backbone", "weights"]) == ""
    assert did_you_mean("zzz", []) == ""


def test_a_name_out_of_a_file_is_quoted_printable_and_not_too_long():
    assert quoted("conv1") == "'conv1'"
    assert quoted("\x1b[2J\n") == "'\\x1b[2J\\n'"
    assert quoted("n" * 900) == "'" + "n" * 60 + "...'"


def test_the_field_at_fault_stands_in_front_of_the_message():
    error = UserError("there is no folder nowhere.", field="to", exit_code=2)
    assert str(error) == "to: there is no folder nowhere."
    assert (error.field, error.message) == ("to", "there is no folder nowhere.")
    assert (UserError("photos: is empty.").field, UserError("gone.").message) == ("", "gone.")


def test_an_error_is_the_same_from_another_process():
    error = pickle.loads(pickle.dumps(UserError("too few.", field="steps", exit_code=2)))
    assert (str(error), error.field, error.message) == ("steps: too few.", "steps", "too few.")
    assert error.exit_code == 2
