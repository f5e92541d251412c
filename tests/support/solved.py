"""Features for the tests of solved heads: classes that overlap, so that scores are not 0 or 1."""

import numpy as np

from kerasft.heads.solved import Examples

FEATURES = 12


def examples(
    counts: list[int], *, seed: int, features: int = FEATURES, offset: float = 0.0
) -> Examples:
    """Draws features of `counts[k]` images of each class k, in random order.

    Features are float32 [N,F] and not negative, as after a ReLU; the last one is 0.5 for all
    images. Another seed gives other images of the same classes.
    """
    centres = np.random.default_rng(99).normal(0, 0.8, (len(counts), features))
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(np.arange(len(counts)), counts))
    x = np.maximum(0, centres[labels] + rng.normal(0, 1, (len(labels), features)))
    x[:, -1] = 0.5
    return Examples((x + offset).astype("float32"), labels)
