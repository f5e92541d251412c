"""An export that was opened: the same for every format, without TensorFlow.

Shapes: N images, S side of the model's square input in pixels, K classes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True, eq=False)
class Answer:
    """What an export says about image files.

    Attributes:
        scores: float32 [N,K], rows sum to 1.
        labels: K names, in the order of the scores.
        logits: float32 [N,K], which rank the classes also where their scores are 0; None if the
            export does not give them.
        top_labels: N names of the best labels; None if the format does not give them.
        top_scores: float32 [N], the best scores; None if the format does not give them.
        abstain: bool [N], whether the best score is below the threshold; None if there is none.
    """

    scores: "np.ndarray"
    labels: Sequence[str]
    logits: "np.ndarray | None" = None
    top_labels: Sequence[str] | None = None
    top_scores: "np.ndarray | None" = None
    abstain: "np.ndarray | None" = None


@dataclass(frozen=True, eq=False)
class Scorer:
    """An export that was opened.

    Attributes:
        files: function from the bytes of N image files, at least one, to an Answer.
        file_logits: function from the same bytes to logits float32 [N,K].
        pixels: function from pixels float32 [N,S,S,3], 0 to 255, to scores and logits [N,K].
    """

    files: Callable[[Sequence[bytes]], Answer]
    file_logits: Callable[[Sequence[bytes]], "np.ndarray"]
    pixels: Callable[["np.ndarray"], "tuple[np.ndarray, np.ndarray]"]
