"""Files that need not be images, and the message of an error, for tests of where photos lie."""

import pytest

from kerasft.errors import UserError


def make(root, *paths):
    """Writes a file at each path below a folder; it contains its path. Returns the folder."""
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(path.encode())
    return root


def message_of(call, *arguments, **settings):
    """Returns the message of the UserError that a call raises."""
    with pytest.raises(UserError) as error:
        call(*arguments, **settings)
    return str(error.value)
