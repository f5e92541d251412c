"""Every random choice of a run, from the one seed in its config.

No module keeps a generator of its own: it asks here for a seed with a name, so that
a choice made in one place cannot shift the choices made in another.
"""

import hashlib

import numpy as np

CHUNK = 64  # neighbouring images that stay together in the first, coarse shuffle
BUFFER = 4096  # images that are mixed freely after it


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


def epoch_order(seed: int, epoch: int, n: int) -> np.ndarray:
    """Returns the order in which one epoch visits the training images.

    Whole chunks of neighbours are shuffled first, then the images within a buffer of
    many chunks: a store on disk can be read in long stretches, and up to `BUFFER`
    images the result is a uniform shuffle.

    Args:
        seed: the phase's seed.
        epoch: counted from 0. Any epoch's order can be had without the earlier ones,
            which is what a resumed run needs (`Dataset.shuffle` starts again).
        n: number of training images.

    Returns:
        int64 [n], a permutation of 0 .. n - 1.
    """
    rng = np.random.default_rng(derive_seed(seed, "order", epoch))
    starts = np.arange(0, n, CHUNK)
    rng.shuffle(starts)
    chunks = [np.arange(start, min(start + CHUNK, n)) for start in starts.tolist()]
    order = np.concatenate([np.empty(0, np.int64), *chunks])
    for start in range(0, n, BUFFER):
        rng.shuffle(order[start : start + BUFFER])
    return order


def epoch_views(seed: int, epoch: int, n: int, views: int) -> np.ndarray:
    """Returns which view of each training image one epoch shows.

    Args:
        seed: the phase's seed.
        epoch: counted from 0.
        n: number of training images.
        views: of each image, 1 or more.

    Returns:
        int64 [n], 0 to views - 1; by the image's position, not by when it comes.
    """
    return np.random.default_rng(derive_seed(seed, "view", epoch)).integers(0, views, n)


def mixup_shares(seed: int, epoch: int, n: int, alpha: float) -> np.ndarray:
    """Returns how much of itself each training image keeps in one epoch.

    Args:
        seed: the phase's seed.
        epoch: counted from 0.
        n: number of training images.
        alpha: of the Beta distribution, over 0.

    Returns:
        float32 [n], 0.5 to 1: the larger of the two shares, so that an image stays nearer to
        itself than to its partner.

    Source: Zhang et al. 2018, "mixup: Beyond Empirical Risk Minimization", with a share per
        image, as fastai does it.
    """
    drawn = np.random.default_rng(derive_seed(seed, "mixup", epoch)).beta(alpha, alpha, n)
    return np.maximum(drawn, 1 - drawn).astype("float32")
