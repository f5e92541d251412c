"""A run while it computes: what stays the same over all of its phases."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from kerasft.config.fields import Config
from kerasft.config.settled import Plan
from kerasft.data import batches
from kerasft.data.source import Source
from kerasft.progress import Progress
from kerasft.record import Device
from kerasft.run import Run

SCORING_BATCH = 32
FINITE = "finite"  # key in the figures of several steps: how many there were with a finite loss


@dataclass(frozen=True)
class RunContext:
    """A run while it computes.

    Attributes:
        run: the run directory.
        plan: the settled config.
        source: the photos.
        progress: the callback that receives each `progress.Event`.
        machine: device that computes.
    """

    run: Run
    plan: Plan
    source: Source
    progress: Progress
    machine: Device

    @property
    def config(self) -> Config:
        """The settled config, as the run writes it down."""
        return self.plan.config

    def labels(self, split_name: str) -> np.ndarray:
        """Returns the labels of a split, int32 [n], in the order of `batches`."""
        return self.source.labels[self.source.indices(split_name)]

    def batches(self, split_name: str) -> Iterable[np.ndarray]:
        """Returns the pixels of a split in batches of SCORING_BATCH, in order."""
        return batches.split_batches(
            self.source,
            split_name,
            rule=self.plan.rule,
            batch_size=SCORING_BATCH,
        )
