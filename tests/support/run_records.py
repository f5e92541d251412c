"""Finished runs that are written by hand: their record, and their files."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from kerasft.answers import split_csv
from kerasft.config.load import append_phase, load_config, to_toml
from kerasft.data.splits import write_rows
from kerasft.files import write_atomic
from kerasft.metrics import Figures
from kerasft.record import Device, PhaseResult, RunRecord, Steps
from kerasft.run import create_run, write_record

NAMES = ("ant", "bee")
SPLITS = ["train"] * 4 + ["validation"] * 2 + ["test"] * 8

PHASE = PhaseResult(
    name="head", how=Steps(6, 1), validation=Figures(0.95, 0.1, 60), blocks=0,
    trainable_parameters=10, seconds=1.0, improved=True,
    **dict.fromkeys(("train_loss", "train_accuracy", "val_loss", "val_accuracy"), 0.5),
)  # fmt: skip
RECORD = RunRecord(
    "finished", {}, Device("tensorflow", "cpu", "", 2), seed=0, phases=(PHASE,), best_phase="head",
    validation=Figures(0.95, 0.1, 60), test=Figures(0.9, 0.2, 40),
)  # fmt: skip


def put(path, wrong=(), *, splits=SPLITS, names=NAMES, labels=None, flags=None, phases=1, **record):
    """Makes a run of photos, whose digests are their numbers.

    Args:
        path: directory of the run.
        wrong: numbers of test photos that are taken for the next class.
        splits: split of each photo.
        names: names of the classes.
        labels: label of each photo; None for each class in turn.
        flags: fields of the config.
        phases: number of phases in the config.
        record: fields of the record.
    """
    labels_of = labels or [i % len(names) for i in range(len(splits))]
    run = create_run(Path(path), resume=False)
    config = load_config(None, flags={"data.source": "photos", **(flags or {})})
    for _ in range(phases - 1):
        config = append_phase(config)
    run.config_path.write_text(to_toml(config, run.path))
    rows = [
        (f"{path}-{i}.jpg", labels_of[i], split, f"{i:032x}", "", "", "")
        for i, split in enumerate(splits)
    ]
    write_rows(run.splits_path, rows)
    run.classes_path.write_text("".join(f"{name}\n" for name in names))
    tested = [i for i, split in enumerate(splits) if split == "test"]
    labels = np.array([labels_of[i] for i in tested])
    said = [(k + 1) % len(names) if i in wrong else k for i, k in zip(tested, labels, strict=True)]
    logits = np.eye(len(names))[said]
    write_atomic(
        run.test_path,
        split_csv([rows[i][0] for i in tested], labels, names, logits, logits),
    )
    right = len(tested) - len(wrong)
    figures = {"test": Figures(right / len(tested), 0.2, len(tested)), **record}
    write_record(run, replace(RECORD, **figures))
    return run
