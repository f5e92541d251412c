"""Serves a run or an export until it is stopped."""

import asyncio
import errno
import importlib.util
import ipaddress
import logging
import os
import re
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kerasft import run
from kerasft.errors import UserError
from kerasft.export.facts import read_facts
from kerasft.export.formats import find_export
from kerasft.files import digest_of_file, reason_of
from kerasft.progress import Progress, silent
from kerasft.results import Result
from kerasft.run import Run
from kerasft.text import printable

if TYPE_CHECKING:
    from kerasft.serving.app import Serving
    from kerasft.serving.insight import Insight
    from kerasft.serving.limits import Limits

log = logging.getLogger("kerasft")

LOOPBACK = ("127.0.0.1", "::1", "localhost")

PACKAGES = ("starlette", "uvicorn", "prometheus_client")


@dataclass(frozen=True)
class Started(Result):
    """A server that listens.

    Attributes:
        url: its address, "http://127.0.0.1:8501".
        name: name of the model.
        version: number of the version that is served.
        folder: folder of the versions.
    """

    url: str
    name: str
    version: int
    folder: Path


OnStart = Callable[[Started, Callable[[], None]], None]


def prepare_for(target: str | Path) -> None:
    """Imports what serving needs, and chooses the device.

    Raises:
        UserError: the packages of the extra "serve" are missing.
    """
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(
            f"Serving needs the package {missing[0].replace('_', '-')}. Install what it needs: "
            'pip install "kerasft[serve]"'
        )
    from kerasft.models import target as targets

    targets.prepare_for(target)


def serve_model(
    target: str | Path,
    *,
    host: str = "127.0.0.1",
    port: int = 8501,
    token_file: str | Path | None = None,
    name: str | None = None,
    data: str | Path | None = None,
    limits: "Limits | None" = None,
    progress: Progress = silent,
    started: OnStart = lambda server, stop: None,
) -> None:
    """Serves a model by HTTP, until it is stopped by a signal or by `started`'s `stop`.

    Args:
        target: run directory, whose newest SavedModel is served, made if there is none; or a folder
            of versions, or one of these.
        host: address to listen on.
        port: port to listen on; 0 takes a free one.
        token_file: file with the token that requests must bring; None asks for none.
        name: name of the model in addresses; None takes that of the run directory.
        data: present place of the run's photos, if they were moved; an export is proven on them.
        limits: limits of the server; None takes the usual ones.
        progress: receiver of events while an export is made.
        started: function that is called once the server listens, with what it serves and a
            function that ends it, which may be called in any thread.

    Raises:
        UserError: a package is missing; no such run or export; an address that can't be listened
            on, a bad name or token file (exit code 2); no version works.
    """
    prepare_for(target)
    from kerasft.serving.insight import Insight
    from kerasft.serving.limits import Limits

    folder, of_run = _folder_of(Path(target))
    name = _name_of(folder, of_run, name)
    token = "" if token_file is None else _read_token(Path(token_file))
    with _listening(host, port) as listener:
        there = find_export(folder) is not None
        if there and data is not None:
            log.warning(
                "The photos in %s are not read: %s is there already, and only an export that is "
                "made is proven on photos.",
                data,
                folder,
            )
        if of_run is not None and not there:
            from kerasft.export.export import export_run

            log.info("%s has no export yet, so one is made.", of_run.path)
            export_run(of_run.path, data=data, progress=progress)
        elif of_run is not None:
            _tell_if_older(folder, of_run)
        serving = _serving_of(name, folder, limits or Limits())
        insight = Insight(of_run) if of_run else None
        _Server(serving, insight, listener, host, token).run(started)


def _folder_of(target: Path) -> tuple[Path, Run | None]:
    """Returns the folder of the versions, and the run where one was named."""
    if find_export(target) is not None:
        return target, None
    if target.is_file():
        raise UserError(
            f"{target}: is a file. Expected a run directory, or the folder of an export.",
            exit_code=2,
        )
    of_run = run.open_run(target)
    run.model_file(of_run)
    return of_run.path / "export", of_run


def _tell_if_older(folder: Path, of_run: Run) -> None:
    found = find_export(folder)
    assert found is not None
    try:
        made_of = read_facts(found[1]).model_digest
    except UserError:  # of an older kerasft, or damaged, which is told of when it is opened
        made_of = ""
    newer = of_run.model_path.stat().st_mtime > found[1].stat().st_mtime
    if made_of != digest_of_file(of_run.model_path) if made_of else newer:
        log.warning(
            "The model of %s has changed since its newest export, %s, which is what is served. "
            "`kerasft export %s` makes a new one, and this server then takes it.",
            of_run.path,
            found[1],
            of_run.path,
        )


_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}")


def _name_of(folder: Path, of_run: Run | None, name: str | None) -> str:
    """Returns the name of the model: a part of an address."""
    if name is not None:
        if not _NAME.fullmatch(name):
            raise UserError(
                "expected letters, digits, '.', '_' and '-', at most 100 of them and no '.' at "
                f"the start, got {printable(name)!r}.",
                field="name",
                exit_code=2,
            )
        return name
    place = (of_run.path if of_run else folder).resolve()
    if of_run is None:
        if place.name.isdecimal():
            place = place.parent
        if Run(place.parent).record_path.is_file():
            place = place.parent
    made = re.sub(r"[^A-Za-z0-9._-]+", "-", place.name).strip(".-")[:100]
    return made or "model"


def _read_token(path: Path) -> str:
    try:
        token = path.read_text("utf-8").strip()
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:
        reason = reason_of(error) if isinstance(error, OSError) else "it is not text"
        raise UserError(
            f"{path} can't be read: {reason}.", field="token_file", exit_code=2
        ) from None
    if not re.fullmatch(r"[\x21-\x7e]{8,}", token):
        raise UserError(
            f"{path}: expected a token of 8 or more letters, digits and signs without spaces. "
            'This makes one: python -c "import secrets; print(secrets.token_urlsafe())"',
            field="token_file",
            exit_code=2,
        )
    if os.name == "posix" and mode & 0o044:
        log.warning("%s can be read by other users of this machine. chmod 600 keeps it.", path)
    return token


def _listening(host: str, port: int) -> socket.socket:
    """Opens the socket, before anything that takes long."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError):
        raise UserError(
            f"'{printable(host)}' is no address of this machine. Expected one such as 127.0.0.1, "
            "or 0.0.0.0 for all.",
            field="host",
            exit_code=2,
        ) from None
    family, _, _, _, address = found[0]
    listener = socket.socket(family, socket.SOCK_STREAM)
    if os.name == "posix":  # on Windows it would share the port with another program
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(address)
        listener.listen(512)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise UserError(
                f"{port} is in use by another program on {host}. Pass another one, such as "
                f"`port={port + 1 if port < 65535 else 8501}`, or stop that program.",
                field="port",
                exit_code=2,
            ) from None
        field = "host" if error.errno == errno.EADDRNOTAVAIL else "port"
        raise UserError(
            f"can't listen on {host}, port {port}: {reason_of(error)}.", field=field, exit_code=2
        ) from None
    return listener


def _serving_of(name: str, folder: Path, limits: "Limits") -> "Serving":
    """Puts together what serves the versions in a folder."""
    from kerasft.serving.app import Serving
    from kerasft.serving.batching import Batcher
    from kerasft.serving.limits import Bodies
    from kerasft.serving.meters import Meters
    from kerasft.serving.versions import Versions

    meters = Meters()
    return Serving(
        name,
        Versions(folder, seconds=limits.seconds_between_looks),
        Batcher(limits, meters),
        Bodies(limits),
        limits,
        meters,
    )


@dataclass(frozen=True, eq=False)
class _Server:
    """A server, from its start to its end.

    Attributes:
        serving: what is served.
        insight: what model.keras knows; None for an export.
        listener: socket that listens.
        host: address that was asked for.
        token: token that requests must bring; "" asks for none.
    """

    serving: "Serving"
    insight: "Insight | None"
    listener: socket.socket
    host: str
    token: str

    def run(self, started: OnStart) -> None:
        """Loads the model, and serves it until it is stopped."""
        serving = self.serving
        try:
            serving.versions.start()
            serving.batcher.start()
            if self.insight:
                self.insight.start()
            asyncio.run(self._serve(started))
        finally:
            serving.versions.stop()
            serving.batcher.stop()
            serving.reader.shutdown(cancel_futures=True)
            serving.converter.shutdown(cancel_futures=True)
            if self.insight:
                self.insight.stop()

    async def _serve(self, started: OnStart) -> None:
        import uvicorn

        from kerasft.serving.app import make_app
        from kerasft.serving.limits import Server, protocol_of
        from kerasft.serving.open_inference import open_inference_routes
        from kerasft.serving.page import page_routes

        serving = self.serving
        app = make_app(
            serving,
            names=self._names(),
            token=self.token,
            more_routes=[*open_inference_routes(serving), *page_routes(serving, self.insight)],
        )
        server = Server(
            uvicorn.Config(
                app,
                http=protocol_of(serving.limits),
                ws="none",
                lifespan="off",
                log_config=None,
                log_level="critical",
                access_log=False,
                server_header=False,
                timeout_keep_alive=30,
                timeout_graceful_shutdown=10,
            )
        )

        def stop() -> None:
            server.should_exit = True

        work = asyncio.ensure_future(server.serve([self.listener]))
        while not (server.started or work.done()):
            await asyncio.sleep(0.01)
        if server.started:
            started(self._started(), stop)
        await work

    def _names(self) -> Sequence[str]:
        """Returns the names of this machine if nobody else reaches it; else ()."""
        address = self.listener.getsockname()[0]
        if not ipaddress.ip_address(address).is_loopback:
            return ()
        return tuple(dict.fromkeys([*LOOPBACK, address, self.host.lower()]))

    def _started(self) -> Started:
        host, port = self.listener.getsockname()[:2]
        if not self._names() and not self.token:
            log.warning(
                "Whoever reaches this machine can use the model, because the server listens on "
                "%s and asks for no token. `token_file=FILE` sets one.",
                host,
            )
        shown = f"[{host}]" if ":" in host else host
        versions = self.serving.versions
        return Started(
            f"http://{shown}:{port}",
            self.serving.name,
            versions.served.number,
            versions.folder,
        )
