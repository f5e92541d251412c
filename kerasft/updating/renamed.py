"""A run whose classes have other names and nothing else: its files, with the names replaced.

Nothing is trained or scored: the weights are those of the old model, which is checked, and so are
all figures.
"""

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from kerasft.answers import with_names
from kerasft.config.fields import Config
from kerasft.config.load import to_toml
from kerasft.data import scan
from kerasft.data.source import Source
from kerasft.errors import UserError
from kerasft.files import new_folder, write_atomic
from kerasft.metrics import Figures
from kerasft.models import bundle
from kerasft.models.cut import fingerprint
from kerasft.record import RunResult
from kerasft.run import Run, read_record, write_record


def write_renamed(
    old: Run, new: Run, config: Config, found: Source, names: Mapping[str, str]
) -> RunResult:
    """Writes a run like another one, with other names of its classes; whole, or not at all.

    Args:
        old: the run to copy.
        new: directory of the new one, absent or empty.
        config: the new config, whose photos are the same.
        found: photos of the old run, as `scan.open_source` opens them, with their old names.
        names: new name of each class of the old run.

    Raises:
        UserError: the directory is not empty, or can't be written.
    """
    record = read_record(old)
    model = bundle.load(old.model_path)
    renamed = replace(model, class_names=tuple(names[name] for name in model.class_names))
    with new_folder(new.path) as part:
        run = Run(part)
        for path in (old.metrics_path, old.answers_path, old.known_path, old.sums_path):
            if path.is_file():
                shutil.copyfile(path, part / path.name)
        photos = replace(found, class_names=renamed.class_names)
        scan.write_splits(photos, run.splits_path)
        scan.write_classes(photos, run.classes_path)
        # Where the folder will lie, since paths are written relative to it.
        write_atomic(run.config_path, to_toml(config, new.path))
        if old.test_path.is_file():
            write_atomic(run.test_path, with_names(old.test_path, names))
        bundle.save(renamed, run.model_path)
        _check_weights(run.model_path, model)
        record = replace(
            record,
            phases=tuple(
                replace(phase, validation=_figures(phase.validation, names))
                for phase in record.phases
            ),
            validation=record.validation and _figures(record.validation, names),
            test=record.test and _figures(record.test, names),
        )
        write_record(run, record)
    return RunResult.of(new.path, record)


def _figures(figures: Figures, names: Mapping[str, str]) -> Figures:
    recall = figures.recall
    return replace(
        figures,
        recall=recall and {names[name]: share for name, share in recall.items()},
        never_predicted=[names[name] for name in figures.never_predicted],
    )


def _check_weights(path: Path, model: bundle.Bundle) -> None:
    """Refuses a model file whose weights are not those of a model, bit by bit."""
    written = fingerprint(bundle.load(path).model)
    if [digest for _, digest in written] != [digest for _, digest in fingerprint(model.model)]:
        raise UserError(f"{path.name}: was written with other weights than those of the old model.")
