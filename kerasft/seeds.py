"""Named seeds: every random choice of a run is derived from the one seed in its config.

No module keeps a random generator: each choice gets its own seed by name, so a choice in one place
can't change the choices in another.
"""

import hashlib


def derive_seed(seed: int, *names: str | int) -> int:
    """Returns the seed of one named choice.

    Args:
        seed: the run's seed.
        names: name of the choice, in parts, such as `"phase", 0, "epoch", 3`.

    Returns:
        An int from 0 to 2**31 - 1, the same on every machine and Python version.
    """
    text = "/".join([str(seed), *map(str, names)])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest()) >> 1
