"""`kerasft serve`: what it serves, what it refuses before anything is loaded, how it ends."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from encoded import PHOTO
from served import ask, exported, exported_run, serving

from kerasft.errors import UserError
from kerasft.export import export
from kerasft.run import Run
from kerasft.serving import serve

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return exported_run(tmp_path_factory.mktemp("served"))


def told(caplog):
    """Returns what kerasft has logged; TensorFlow warns of many models in a process."""
    return [one.getMessage() for one in caplog.records if one.name == "kerasft"]


def refused(target, **options):
    with pytest.raises(UserError) as caught, serving(target, **options):
        pass
    return str(caught.value), caught.value.exit_code


@pytest.mark.skipif(os.name != "posix", reason="Windows has no such signals")
@pytest.mark.parametrize(
    "how", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)]
)
def test_a_server_ends_in_peace(run, how):
    command = [sys.executable, "-m", "kerasft", "serve", str(run), "--port", "0"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        first = process.stdout.readline()
        page, api, end = (process.stdout.readline() for _ in range(3))
        url = re.search(r"http://127\.0\.0\.1:\d+", page)[0]
        assert ask(f"{url}/v1/models/run:predict", PHOTO).status_code == 200
        process.send_signal(how)
        stdout, stderr = process.communicate(timeout=60)
    assert first == f"Serving version 1 of {run / 'export'} as 'run'.\n"
    assert page == f"  {url}/ is a page for people,\n"
    assert api == f"  {url}/v1/models/run:predict TensorFlow Serving's REST API.\n"
    assert (end, stdout, stderr) == ("Ctrl-C stops it.\n", "", "Stopped.\n")
    assert process.returncode == 0


def test_a_port_in_use_is_refused_at_once(run):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        assert refused(run, port=port) == (
            f"port: {port} is in use by another program on 127.0.0.1. Pass another one, such as "
            f"`port={port + 1}`, or stop that program.",
            2,
        )


@pytest.mark.parametrize("host", ["nowhere.invalid", "127.0.0.1:80", "", "192.0.2.1"])
def test_an_address_of_another_machine_is_refused(run, host):
    said, code = refused(run, host=host)
    assert said.startswith("host: ") and code == 2


def test_what_is_neither_a_run_nor_an_export_is_refused(run, tmp_path):
    assert refused(tmp_path / "nothing")[1] == 2
    assert "not a run" in refused(tmp_path)[0]
    said, code = refused(run / "model.keras")
    assert (said.endswith("Expected a run directory, or the folder of an export."), code) == (
        True,
        2,
    )


def test_a_missing_package_gets_the_command_that_installs_it(run, monkeypatch):
    monkeypatch.setattr(serve.importlib.util, "find_spec", lambda name: None)
    assert refused(run)[0] == (
        'Serving needs the package starlette. Install what it needs: pip install "kerasft[serve]"'
    )


@pytest.mark.parametrize("name", ["", "a/b", "..", ".hidden", "a:b", "a b", "x" * 101])
def test_a_name_that_no_address_can_hold_is_refused(run, name):
    said, code = refused(run, name=name)
    assert said.startswith("name: expected letters, digits, ") and code == 2


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("flowers", "flowers"),
        ("my flowers (2)", "my-flowers-2"),
        ("Blüten", "Bl-ten"),
        ("...", "model"),
        ("flowers/7", "flowers"),
    ],
)
def test_an_exports_name_is_that_of_its_folder(tmp_path, path, name):
    (tmp_path / path).mkdir(parents=True)
    assert serve._name_of(tmp_path / path, None, None) == name


@pytest.mark.parametrize("token", ["", "short", "two words", "ümlaute-sind-nichts", "a" * 7])
def test_a_token_file_without_a_good_token_is_refused(run, tmp_path, token):
    file = tmp_path / "token"
    file.write_text(token, "utf-8")
    said, code = refused(run, token_file=file)
    assert said.startswith(f"token_file: {file}: expected a token of 8 or more") and code == 2
    assert token not in said or not token


def test_a_token_file_that_is_not_there_is_refused(run, tmp_path):
    said, code = refused(run, token_file=tmp_path / "no")
    assert said == f"token_file: {tmp_path / 'no'} can't be read: no such file or directory."
    assert code == 2


def test_a_run_without_an_export_gets_one(run, tmp_path, monkeypatch, caplog):
    new = Path(shutil.copytree(run, tmp_path / "new", ignore=shutil.ignore_patterns("export")))
    places = []

    def export_run(path, data, progress):
        places.append(data)
        exported(Path(path))

    monkeypatch.setattr(export, "export_run", export_run)
    with caplog.at_level("INFO", "kerasft"), serving(new, data="moved") as server:
        assert (server.name, server.version) == ("new", 1)
    assert places == ["moved"]
    assert caplog.records[0].getMessage() == f"{new} has no export yet, so one is made."


@pytest.mark.parametrize("target", ["", "export"])
def test_photos_that_no_export_needs_are_told(run, caplog, target):
    with serving(run / target, data="moved"):
        pass
    [said] = told(caplog)
    assert said.startswith(f"The photos in moved are not read: {run / 'export'} is there already,")


def test_a_model_that_is_not_that_of_its_export_is_told_whatever_the_times_say(run, caplog):
    later = (run / "export" / "1").stat().st_mtime + 10
    os.utime(run / "model.keras", (later, later))
    serve._tell_if_older(run / "export", Run(run))
    assert told(caplog) == []  # the control: it is still the same
    facts = run / "export" / "1" / "kerasft.json"
    before = facts.read_text("utf-8")
    facts.write_text(before.replace('"model_digest": "', '"model_digest": "f'))
    with serving(run):
        pass
    facts.write_text(before)
    [said] = told(caplog)
    assert said.startswith(
        f"The model of {run} has changed since its newest export, {run / 'export' / '1'}, "
    )


def test_for_an_export_that_names_no_model_the_times_count(run, caplog):
    facts = run / "export" / "1" / "kerasft.json"
    before = facts.read_text("utf-8")
    facts.write_text(before.replace(json.loads(before)["model_digest"], ""))
    exported_at = (run / "export" / "1").stat().st_mtime
    messages = []
    for later in (-10, 10):
        os.utime(run / "model.keras", (exported_at + later, exported_at + later))
        caplog.clear()
        serve._tell_if_older(run / "export", Run(run))
        messages.append([said.partition(" since")[0] for said in told(caplog)])
    facts.write_text(before)
    assert messages == [[], [f"The model of {run} has changed"]]


@pytest.mark.skipif(os.name != "posix", reason="Windows has no such rights")
def test_a_token_that_others_can_read_is_told(run, tmp_path, caplog):
    file = tmp_path / "token"
    file.write_text("correct-horse-battery")
    file.chmod(0o644)
    assert serve._read_token(file) == "correct-horse-battery"
    assert caplog.records[0].getMessage() == (
        f"{file} can be read by other users of this machine. chmod 600 keeps it."
    )


def test_a_server_that_others_reach_without_a_token_is_told(run, caplog):
    with serving(run / "export", host="0.0.0.0") as server:
        port = server.url.rpartition(":")[2]
        other_name = {"Host": "models.example"}  # of which it can't know them all
        got = httpx.get(f"http://127.0.0.1:{port}/v1/models/run", headers=other_name)
        assert got.status_code == 200
    assert caplog.records[0].getMessage() == (
        "Whoever reaches this machine can use the model, because the server listens on 0.0.0.0 "
        "and asks for no token. `token_file=FILE` sets one."
    )


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere 127.0.0.2 is not there")
def test_any_address_of_loopback_is_one_of_this_machine_alone(run, caplog):
    with serving(run / "export", host="127.0.0.2") as server:
        assert httpx.get(f"{server.url}/v1/models/run").status_code == 200
        other = httpx.get(f"{server.url}/v1/models/run", headers={"Host": "models.example"})
        assert other.status_code == 403
    assert caplog.records == []


def test_it_listens_on_ipv6(run):
    if not socket.has_ipv6:
        pytest.skip("this machine has no IPv6")
    try:
        with serving(run / "export" / "1", host="::1") as server:
            assert server.url.startswith("http://[::1]:")
            assert json.loads(httpx.get(f"{server.url}/healthz").text)["status"] == "ok"
    except UserError as error:
        pytest.skip(f"this machine has no IPv6: {error}")
