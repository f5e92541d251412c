"""UserError: the one exception that users are meant to read.

Its message says where the problem is, what is wrong, what was expected and received, and what to
do. Every other exception is a bug and keeps its traceback.

The library's messages name config fields and arguments of functions, never flags of the command
line. Things that can be set are in backticks, as Python or as `KEY=VALUE` of the config:
`resume=True`, `run_dir`, `phases.0.stored=false`. `kerasft/cli/wording.py` turns them into flags.
"""

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches

UNWRITABLE = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
"""Characters that no line of a file and of a message can hold.

Surrogates are how Python shows the bytes of a name that is not UTF-8.
"""

_ENDLESS = re.compile(r"(\S{200})\S{800,}")


def readable(text: str) -> str:
    """Returns a text that can be shown, whatever names and values out of files it quotes.

    Control characters but line ends are escaped, so that no terminal obeys them, and words of a
    thousand characters are cut off.
    """
    text = _ENDLESS.sub(r"\1...", text)
    lines = text.split("\n")
    return "\n".join(map(escaped, lines))


def escaped(text: str) -> str:
    """Returns a text with the characters of `UNWRITABLE` escaped, line ends too."""
    return UNWRITABLE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def first_line(error: BaseException) -> str:
    """Returns the first line of what a library says of a failure, or the kind of failure."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines or [type(error).__name__])[0].rstrip(".")


class UserError(Exception):
    """An error with a clear message for the person who called the library or typed the command.

    Args:
        message: full sentences, without "Error:" in front; further lines are indented by two
            spaces. What it quotes is made readable.
        field: config field ("cache.precision") or argument ("to") at fault, which `str` puts in
            front of the message; "" for an error in anything else.
        exit_code: exit code of the command: 2 for a path, argument or config value that the user
            chose; 1 for the contents of files and runs.
    """

    def __init__(self, message: str, *, field: str = "", exit_code: int = 1) -> None:
        message = readable(message)
        super().__init__(f"{field}: {message}" if field else message)
        self.message = message
        self.field = field
        self.exit_code = exit_code


class PhaseFailed(UserError):
    """The failure of a phase that would fail again: loss not a number, no room, no freeze proof."""


class OutOfMemory(UserError):
    """The failure of an allocation, in the machine's memory or in a GPU's.

    Attributes:
        sets: settings that need less memory, as texts "key=value"; () if none is known.
    """

    def __init__(self, message: str, *, sets: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.sets = sets


_NO_ROOM = re.compile(
    r"RESOURCE_EXHAUSTED|MemoryError|bad_alloc|\bOOM\b|out of memory|can't allocate memory|"
    r"ALLOC_FAILED|OUT_OF_MEMORY",
    re.IGNORECASE,
)


def is_out_of_memory(error: BaseException) -> bool:
    """Returns whether an exception of Python, NumPy, TensorFlow, JAX or PyTorch is lack of memory.

    They share no class, and what fails inside TensorFlow's threads arrives as a text.
    """
    if isinstance(error, UserError | OSError):
        return False
    if isinstance(error, MemoryError):
        return True
    text = str(error)
    of_files = "No space left" in text or "Too many open files" in text  # TensorFlow's same class
    return not of_files and _NO_ROOM.search(text) is not None


@contextmanager
def within_memory(what: str, advice: str, *, sets: tuple[str, ...] = ()) -> Iterator[None]:
    """Turns lack of memory in the block into an `OutOfMemory`.

    Args:
        what: what the block does, such as "a training step of 32 images".
        advice: sentence that says what to do.
        sets: settings that need less memory.
    """
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise OutOfMemory(f"Out of memory in {what}. {advice}", sets=sets) from error


class TooFewPhotos(UserError):
    """The refusal of a method that needs more photos of a class; another method may do."""


class Unreadable(ValueError):
    """An image that cannot be converted; the message follows the file's name: "is truncated"."""


class OutOfTime(Exception):
    """The end of a comparison's time budget: stops the training, and is caught by `compare`."""


def did_you_mean(given: str, known: Iterable[str]) -> str:
    """Returns `" Did you mean 'x'?"` with the nearest known name, or `""` if none is near.

    Args:
        given: the name as it was typed; case is ignored.
        known: the valid names.
    """
    by_lower = {name.lower(): name for name in known}
    nearest = get_close_matches(given.lower(), by_lower, n=1)
    return f" Did you mean '{by_lower[nearest[0]]}'?" if nearest else ""
