"""Which unlabelled photos are worth a person's minute: unsure ones, each unlike the others.

A photo of which the model is sure teaches it little, and of ten that look alike one teaches as much
as all. So clusters are formed among the most unsure photos, in which unsure ones weigh more, and
each gives its most unsure one. What that wins over photos chosen at random:
`scripts/results/bench_review.md`.

Source: Zhdanov, "Diverse mini-batch active learning", 2019, section 3: k-means over the features of
the beta * n most unsure photos, weighted by how unsure they are.

Shapes: N unlabelled photos, K classes, F features.
"""

import numpy as np

from kerasft.novelty.known import unit

BETA = 10  # photos among which clusters are formed, for each that is chosen
SEED = 0


def margins(scores: np.ndarray) -> np.ndarray:
    """Returns how sure a model is: the best score minus the second best, [N,K] -> [N], 0 to 1."""
    best = np.sort(scores, axis=1)
    return np.asarray(best[:, -1] - best[:, -2])


def choose(scores: np.ndarray, features: np.ndarray, n: int) -> np.ndarray:
    """Chooses photos to be labelled.

    The same photos give the same choice, in whatever order they come, but for ties.

    Args:
        scores: scores of the model, [N,K].
        features: features that say what is alike, [N,F].
        n: number of photos to choose; 0 chooses none.

    Returns:
        Positions of min(n, N) photos, the most unsure first, int.
    """
    from sklearn.cluster import KMeans
    from threadpoolctl import threadpool_limits

    if not n:
        return np.zeros(0, int)
    sure = margins(scores)
    order = np.argsort(sure, kind="stable")
    if n >= len(order):
        return order
    asked = order[: BETA * n]
    rows = unit(features[asked])
    different = min(n, len(np.unique(rows, axis=0)))
    # Without threads: their sums would differ in the last bits from run to run.
    with threadpool_limits(1):
        clusters = KMeans(different, n_init=1, max_iter=50, random_state=SEED).fit_predict(
            rows, sample_weight=1 - sure[asked] + 1e-6
        )
    _, first = np.unique(clusters, return_index=True)  # each cluster's most unsure one
    rest = np.setdiff1d(np.arange(len(asked)), first)[: n - len(first)]
    return np.asarray(asked[np.sort(np.concatenate([first, rest]))])


def farthest(distances: np.ndarray, features: np.ndarray, n: int) -> np.ndarray:
    """Chooses photos far from all known ones and from each other: always the farthest one left.

    Args:
        distances: distance of each photo to the nearest known one, [N], see `known.distances`.
        features: their features, [N,F].
        n: number of photos to choose.

    Returns:
        Positions of min(n, N) photos, in the order in which they were chosen, int.
    """
    rows, away = unit(features), np.array(distances, np.float64)
    chosen: list[int] = []
    for _ in range(min(n, len(away))):
        at = int(away.argmax())
        chosen.append(at)
        away = np.minimum(away, 1 - rows @ rows[at])
        away[chosen] = -np.inf
    return np.array(chosen, int)
