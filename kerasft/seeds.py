"""Named seeds: every random choice of a run is derived from the one seed in its config.

No module keeps a generator of its own: it asks here for a seed with a name, so that
a choice made in one place cannot shift the choices made in another.
"""

import hashlib


def derive_seed(seed: int, *names: str | int) -> int:
    """Returns the seed of one named choice.

    Args:
        seed: the run's seed.
        names: what the choice is for, for example `("phase", 0, "epoch", 3)`.

    Returns:
        An int from 0 to 2**31 - 1. The same on every machine and Python version.
    """
    text = "/".join([str(seed), *map(str, names)])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest()) >> 1
