"""A server on a loopback port, in a thread of the test's process."""

import atexit
import base64
import functools
import json
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import tensorflow as tf
from small_run import small_run

from kerasft.export.facts import ExportFacts, write_facts
from kerasft.export.formats import Exporter
from kerasft.export.savedmodel import write as write_savedmodel
from kerasft.files import digest_of_file
from kerasft.models import bundle
from kerasft.serving import versions
from kerasft.serving.serve import Started, serve_model
from kerasft.serving.signatures import Model, open_model

_opened: dict[object, Any] = {}


def _once(open_version: Callable[..., Any], folder: Path, *arguments: Any) -> Any:
    """Opens a version, or returns the equal one that was opened before in this process.

    It takes seconds until TensorFlow has loaded a SavedModel and prepared its graph.
    """
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    key = open_version, *((str(path.relative_to(folder)), digest_of_file(path)) for path in files)
    if key not in _opened:
        _opened[key] = open_version(*arguments)
    return _opened[key]


def open_once(exporter: Exporter, folder: Path) -> Model:
    """Opens a version as serving does, once for all equal ones."""
    return _once(open_model, folder, exporter, folder)


def signatures_of(version: Path) -> Any:
    """Returns the signatures of a SavedModel as TensorFlow itself opens it."""
    return _once(tf.saved_model.load, version, str(version)).signatures


@contextmanager
def serving(target: Path, *, opens_anew: bool = False, **options: Any) -> Iterator[Started]:
    """Serves a run or an export on a free port until the block ends.

    Args:
        target: run or export.
        opens_anew: True opens each version although an equal one was opened before.
        options: options of `serve_model`.

    Yields:
        The server that listens.
    """
    open_version = open_model if opens_anew else open_once
    opening = functools.partial(versions.Versions, open_version=open_version)
    listens, servers, errors = threading.Event(), [], []

    def started(server: Started, stop: Callable[[], None]) -> None:
        servers.append((server, stop))
        listens.set()

    def work() -> None:
        try:
            serve_model(target, started=started, **{"port": 0, **options})
        except BaseException as error:
            errors.append(error)
        listens.set()

    thread = threading.Thread(target=work, daemon=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(versions, "Versions", opening)
        thread.start()
        assert listens.wait(300)
    if errors:
        raise errors[0]
    [(server, stop)] = servers
    try:
        yield server
    finally:
        stop()
        thread.join(60)
        assert not thread.is_alive()
        assert errors == []


def exported(run: Path, number: int = 1) -> Path:
    """Writes a version of a run's model without the parity proof, whole or not at all.

    Returns:
        The folder of the version, RUN/export/NUMBER.
    """
    part = run / f"part-{number}"
    part.mkdir()
    opened, digest = bundle.load(run / "model.keras"), digest_of_file(run / "model.keras")
    write_facts(part, ExportFacts.of(opened, "saved-model", model_digest=digest))
    write_savedmodel(opened, part)
    (run / "export").mkdir(exist_ok=True)
    return Path(shutil.move(part, run / "export" / str(number)))


def exported_run(folder: Path, number: int = 1) -> Path:
    """Copies a small run that has an export, and its photos, into a folder; returns the run.

    The first call in a process makes it, which takes seconds.
    """
    made = _exported_run()
    shutil.copytree(made.parent, folder, dirs_exist_ok=True)
    run = folder / made.name
    if number != 1:
        (run / "export" / "1").rename(run / "export" / str(number))
    return run


@functools.cache
def _exported_run() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="kerasft-served-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    run = small_run(folder)
    exported(run)
    return run


def base64_of(encoded: bytes) -> dict[str, str]:
    """Writes the bytes of a file as they stand in a request."""
    return {"b64": base64.b64encode(encoded).decode()}


def ask(url: str, *files: bytes, **more: Any) -> httpx.Response:
    """Asks a server to predict files in the row form."""
    body = {"instances": [base64_of(one) for one in files], **more}
    return httpx.post(url, content=json.dumps(body), timeout=30)
