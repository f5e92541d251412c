"""UserError: the one exception that users are meant to read.

Its message says where, what is wrong, what was expected, what was received and what to do.
Every other exception is a bug and keeps its traceback.

The library names config fields and the arguments of its functions, never a flag of the command
line. What can be set stands in backticks, as Python or a `KEY=VALUE` of the config: `resume=True`,
`run_dir`, `phases.0.stored=false`. `kerasft/cli/wording.py` makes flags of these.
"""

from collections.abc import Iterable
from difflib import get_close_matches


class UserError(Exception):
    """One clear message for the person who called the library or typed the command.

    Args:
        message: whole sentences without "Error:" in front; further lines are indented by
            two spaces.
        field: the config field ("cache.precision") or argument ("to") at fault, which `str`
            puts in front of the message; "" for an error in anything else.
        exit_code: 2 for a path, argument or config value that the user chose; 1 for the
            contents of files and runs.
    """

    def __init__(self, message: str, *, field: str = "", exit_code: int = 1) -> None:
        super().__init__(f"{field}: {message}" if field else message)
        self.message = message
        self.field = field
        self.exit_code = exit_code


class PhaseFailed(UserError):
    """A phase came to nothing, and would again: no number, no room for its store, no proof."""


class OutOfTime(Exception):
    """The budget of a comparison is used up; it ends what is being trained, and goes no further."""


def did_you_mean(given: str, known: Iterable[str]) -> str:
    """Returns `" Did you mean 'x'?"` for the nearest of the known names, or `""`.

    Args:
        given: what was typed; upper and lower case count as the same.
        known: the names that would have been right.
    """
    by_lower = {name.lower(): name for name in known}
    nearest = get_close_matches(given.lower(), by_lower, n=1)
    return f" Did you mean '{by_lower[nearest[0]]}'?" if nearest else ""
