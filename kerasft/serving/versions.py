"""The versions of a model: found in a folder, loaded, tried out, swapped.

One version is served, the highest one that works, as TensorFlow Serving does by default. The
folder is looked at again and again. A new version is loaded beside the old one, once its files
stay the same from one look to the next, and tried out on a drawn image; then new requests go to
it. The old one stays reachable by its number until the next look. A version that does not work is
refused, with the reason in its state, and tried again when its files change.
"""

import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from kerasft.errors import UserError
from kerasft.export import formats
from kerasft.export.formats import Exporter, find_export
from kerasft.serving.signatures import Model, open_model

log = logging.getLogger("kerasft")

AVAILABLE, LOADING, UNLOADING, END = "AVAILABLE", "LOADING", "UNLOADING", "END"

Print = tuple[tuple[str, int, int], ...]
"""Names, sizes and times of the files of a version."""


@dataclass(frozen=True, eq=False)
class Version:
    """A version that is loaded: its number and its model."""

    number: int
    model: Model


@dataclass(frozen=True)
class State:
    """The state of a version.

    Attributes:
        name: "LOADING", "AVAILABLE", "UNLOADING" or "END", as in TensorFlow Serving.
        problem: why the version is refused; "" if it is not.
    """

    name: str
    problem: str = ""


@dataclass(frozen=True)
class Place:
    """The place of a version: its number, its row in the table of formats, its folder."""

    number: int
    exporter: Exporter
    folder: Path


def versions_in(folder: Path) -> list[Place]:
    """Lists the versions in a folder, the highest number first; of an export, itself alone."""
    found = find_export(folder)
    if found is not None and found[1] == folder:
        name = folder.resolve().name
        return [Place(int(name) if name.isdecimal() else 1, *found)]
    inside = formats.versions_in(folder)
    return [Place(number, *inside[number]) for number in sorted(inside, reverse=True)]


class Versions:
    """The versions in a folder, one of which is served.

    Attributes:
        folder: the folder of the versions, or the folder of one.
    """

    def __init__(
        self,
        folder: Path,
        *,
        seconds: float,
        open_version: Callable[[Exporter, Path], Model] = open_model,
    ) -> None:
        self.folder = folder
        self._seconds = seconds
        self._open = open_version
        self._served: Version | None = None
        self._retired: Version | None = None
        self._states: dict[int, State] = {}
        self._refused: dict[int, Print] = {}
        self._seen: dict[int, Print] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="kerasft-versions", daemon=True)

    @property
    def served(self) -> Version:
        """The version that is served."""
        assert self._served is not None
        return self._served

    def find(self, number: int | None) -> Version | None:
        """Returns a version by its number, the served one for None; None if it is not loaded."""
        for version in (self._served, self._retired):
            if version is not None and number in (None, version.number):
                return version
        return None

    def states(self) -> Mapping[int, State]:
        """Returns the states of all versions that were met, the highest number first."""
        return dict(sorted(self._states.items(), reverse=True))

    def start(self) -> None:
        """Loads the highest version that works, and begins to look for new ones.

        Raises:
            UserError: none works.
        """
        for place in versions_in(self.folder):
            if self._load(place, _print_of(place.folder)):
                break
        if self._served is None:
            problems = [
                f"{self.folder}, version {number}: {state.problem}"
                for number, state in self.states().items()
            ]
            raise UserError("\n  ".join(["No version can be served.", *problems]))
        self._thread.start()

    def stop(self) -> None:
        """Ends looking for versions."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(self._seconds):
            try:
                self.look()
            except Exception:  # the folder may vanish at any moment
                log.exception("%s can't be looked at", self.folder)

    def look(self) -> None:
        """Looks at the folder once: forgets the old version, loads a new one if there is one."""
        if self._retired is not None:
            self._states[self._retired.number] = State(END)
            self._retired = None
        if not self.folder.is_dir():
            return
        places = versions_in(self.folder)
        served = self.served.number
        gone = served not in {place.number for place in places}
        prints = {place.number: _print_of(place.folder) for place in places}
        before, self._seen = self._seen, prints
        for place in places:
            if place.number < served and not gone:
                return
            now = prints[place.number]
            if place.number == served or now == self._refused.get(place.number):
                continue
            if now != before.get(place.number):
                return  # it is being written
            if self._load(place, now):
                return

    def _load(self, place: Place, now: Print) -> bool:
        number = place.number
        self._states[number] = State(LOADING)
        try:
            model = self._open(place.exporter, place.folder)
        except Exception as error:  # whatever a damaged file raises, the old version goes on
            text = str(error).splitlines()[0] if str(error) else type(error).__name__
            # Whoever asks the server need not know where the folder is.
            problem = text.replace(f"{place.folder}: ", "").replace(str(place.folder), "it")
            if not isinstance(error, UserError):
                problem = f"it can't be used: {problem}"
            self._states[number] = State(END, problem)
            self._refused[number] = now
            instead = f"; version {self._served.number} is served on" if self._served else ""
            log.warning("%s is refused%s: %s", place.folder, instead, problem)
            return False
        old, self._retired = self._served, self._served
        self._served = Version(number, model)
        self._states[number] = State(AVAILABLE)
        if old is not None:
            self._states[old.number] = State(UNLOADING)
            log.info("Version %d is served now, instead of version %d.", number, old.number)
            if old.model.class_names != model.class_names:
                log.warning("Version %d has other classes than version %d.", number, old.number)
        return True


def _print_of(folder: Path) -> Print:
    files = []
    for path in sorted(folder.rglob("*")):
        try:
            stat = path.stat()
        except OSError:  # it has just gone
            continue
        files.append((str(path.relative_to(folder)), stat.st_size, stat.st_mtime_ns))
    return tuple(files)
