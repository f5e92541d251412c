"""What stays the same over all phases of a run."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from kerasft.config.fields import Config
from kerasft.data.batches import split_batches
from kerasft.data.source import Source
from kerasft.progress import Progress
from kerasft.run import Run

SCORING_BATCH = 32


@dataclass(frozen=True)
class RunContext:
    """A run: where it is, what was asked for, the photos, whom to tell, and what computes.

    `machine` is what run.json records of it: `{"backend", "device", "name", "threads"}`.
    """

    run: Run
    config: Config
    source: Source
    progress: Progress
    machine: Mapping[str, object]

    def labels(self, split_name: str) -> np.ndarray:
        """int32 [n], in the order in which `batches` feeds the split."""
        return self.source.labels[self.source.indices(split_name)]

    def batches(self, split_name: str, *, times: int = 1) -> Iterable:
        """Pixels of a split, plain and in order, `times` over: batches of SCORING_BATCH."""
        return split_batches(
            self.source,
            split_name,
            image_size=self.image_size,
            resize=self.config.data.resize,
            batch_size=SCORING_BATCH,
            times=times,
        )

    @property
    def image_size(self) -> int:
        """Side of the model's square input, pixels."""
        assert self.config.model.image_size is not None  # resolved before the first phase
        return self.config.model.image_size
