"""The record of a finished run, for tests that write a run by hand."""

from kerasft.metrics import Figures
from kerasft.record import Device, PhaseResult, RunRecord, Steps

PHASE = PhaseResult(
    name="head", how=Steps(6, 1), validation=Figures(0.95, 0.1, 60), blocks=0,
    trainable_parameters=10, seconds=1.0, improved=True,
    **dict.fromkeys(("train_loss", "train_accuracy", "val_loss", "val_accuracy"), 0.5),
)  # fmt: skip
RECORD = RunRecord(
    "finished", {}, Device("tensorflow", "cpu", "", 2), seed=0, phases=(PHASE,), best_phase="head",
    validation=Figures(0.95, 0.1, 60), test=Figures(0.9, 0.2, 40),
)  # fmt: skip
