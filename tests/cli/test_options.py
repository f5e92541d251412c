import os
import subprocess
import sys

import pytest

from kerasft.cli.options import print_result
from kerasft.cli.wording import as_typed


def test_text_is_what_a_function_makes_of_the_result(capsys):
    print_result({"n": 3}, lambda result: f"{result['n']} images", as_json=False)
    assert capsys.readouterr().out == "3 images\n"


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_a_number_that_json_lacks_is_null_wherever_it_is(number, capsys):
    print_result({"a": [{"b": number}, (1.5, number)]}, str, as_json=True)
    assert capsys.readouterr().out == '{"a": [{"b": null}, [1.5, null]]}\n'


@pytest.mark.parametrize(
    ("encoding", "printed"),
    [("cp1252", b"caf\xe9 \\u732b"), ("utf-8", "caf\xe9 \u732b".encode())],
)
def test_a_name_that_the_encoding_of_a_pipe_lacks_is_printed_all_the_same(encoding, printed):
    code = (
        "from kerasft.cli.options import print_result\n"
        "print_result('caf\\xe9 \\u732b', str, as_json=False)"
    )
    variables = {**os.environ, "PYTHONIOENCODING": encoding}
    done = subprocess.run([sys.executable, "-c", code], env=variables, capture_output=True)
    assert done.stdout.rstrip() == printed, done.stderr


@pytest.mark.parametrize(
    ("system", "typed"),
    [("posix", "kerasft train --run 'my run'"), ("nt", 'kerasft train --run "my run"')],
)
def test_a_command_to_type_is_quoted_as_the_system_wants_it(system, typed, monkeypatch):
    monkeypatch.setattr(os, "name", system)
    assert as_typed("kerasft", "train", "--run", "my run") == typed


def test_the_package_is_a_command():
    command = [sys.executable, "-m", "kerasft", "--version"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout.startswith("kerasft, version "), done.stderr
