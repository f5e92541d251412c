"""An export that was opened: the same for every format, without TensorFlow.

Shapes: N images, S side of the model's square input in pixels, K classes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kerasft.export.facts import ExportFacts

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True, eq=False)
class Answer:
    """What an export says about image files.

    Attributes:
        scores: float32 [N,K], rows sum to 1; a row of zeros for a file that can't be read.
        labels: K names, in the order of the scores.
        logits: float32 [N,K], which rank the classes also where their scores are 0; None if the
            export does not give them.
        top_labels: N names of the best labels, "" for a file that can't be read; None if the
            export does not give them.
        top_scores: float32 [N], the best scores; None if the export does not give them.
        abstain: bool [N], whether the best score is below the threshold; None if there is none.
        errors: N reasons in words that follow the name of the file ("is truncated"), "" for
            one that was read. () if the export gives none: then one bad file fails the call.
    """

    scores: "np.ndarray"
    labels: Sequence[str]
    logits: "np.ndarray | None" = None
    top_labels: Sequence[str] | None = None
    top_scores: "np.ndarray | None" = None
    abstain: "np.ndarray | None" = None
    errors: Sequence[str] = ()


@dataclass(frozen=True, eq=False)
class Scorer:
    """An export that was opened.

    Attributes:
        files: function from the bytes of N image files, at least one, to an Answer.
        pixels: function from pixels float32 [N,S,S,3], 0 to 255, N at least one, to scores
            float32 [N,K] and logits [N,K]; the logits are None where the format has none.
        file_logits: function from the bytes of N image files to logits float32 [N,K]; None where
            the format has none.
    """

    files: Callable[[Sequence[bytes]], Answer]
    pixels: Callable[["np.ndarray"], "tuple[np.ndarray, np.ndarray | None]"]
    file_logits: Callable[[Sequence[bytes]], "np.ndarray"] | None = None


DAMAGED = "It may be damaged, or from another version of its runtime: export again."

BATCH = 4
"""Number of images that LiteRT, ONNX Runtime and OpenVINO compute at once.

More are slower, because what they compute on the way no longer fits into the caches, and need more
memory. 32 images of MobileNetV2 at 224 pixels took two cores 98 ms in batches of 4 and 135 ms in
one, in ONNX's int8; 181 and 357 ms in its float32; 301 and 344 ms in OpenVINO.
"""


LEAST = 1e-30
"""Smallest score whose logarithm stands for a logit."""


def logarithms_of(scores: "np.ndarray") -> "np.ndarray":
    """Returns what stands for logits in formats that give scores alone: [N,K] to [N,K].

    A score of 0 has a logarithm, too, because an infinite one could not be compared; a NaN stays.
    """
    import numpy as np

    return np.log(np.maximum(scores, LEAST))


def of_pixels(
    compute: Callable[["np.ndarray"], "np.ndarray"],
    facts: ExportFacts,
    *,
    batch: int | None = BATCH,
) -> Scorer:
    """Makes a scorer of a model that takes pixels; kerasft decodes the files, by its rule.

    Args:
        compute: function from pixels float32 [B,S,S,3], 0 to 255, B at least one, to scores
            float32 [B,K].
        facts: what the export says about itself.
        batch: largest number of images that `compute` is given at once; None gives it all.
    """

    def pixels(squares: "np.ndarray") -> "np.ndarray":
        import numpy as np

        size = batch or len(squares)
        starts = range(0, len(squares), size)
        return np.concatenate([compute(squares[start : start + size]) for start in starts])

    def files(encoded: Sequence[bytes]) -> Answer:
        import numpy as np

        from kerasft.pixels.decode import read_squares  # loads TensorFlow; the model does not

        squares, errors = read_squares(encoded, facts.rule)
        good = np.array([not error for error in errors])
        scores = np.zeros((len(squares), len(facts.class_names)), np.float32)
        if good.any():
            scores[good] = pixels(squares[good])
        top_scores = scores.max(axis=1)
        best = [facts.class_names[k] for k in scores.argmax(axis=1)]
        return Answer(
            scores=scores,
            labels=facts.class_names,
            top_labels=[name if fine else "" for name, fine in zip(best, good, strict=True)],
            top_scores=top_scores,
            abstain=None if facts.threshold is None else top_scores < facts.threshold,
            errors=errors,
        )

    return Scorer(files, lambda squares: (pixels(squares), None))
