"""A run from what another one has kept of its photos, which are gone, and from new photos.

    old photos    sums of their features (`heads/sums.py`), features of validation and test
    new photos    their features in the net of the old run
    the head      solved anew from the sums of both; if no photo is new, that of the old run, the
                  scores of merged classes summed

Shapes: N images, F features, K classes of the new run.
"""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import keras
import numpy as np

from kerasft import __version__, devices
from kerasft.activations.context import SCORING_BATCH
from kerasft.answers import split_csv
from kerasft.confidence import Calibration, calibrate, softmax
from kerasft.config.fields import Config, Solved
from kerasft.config.load import changed as changed_config
from kerasft.config.load import to_toml
from kerasft.data import scan
from kerasft.data.batches import split_batches
from kerasft.data.splits import read_class_names, read_rows, units_of_split
from kerasft.errors import UserError
from kerasft.files import new_folder, refuse_filled, write_atomic
from kerasft.heads import solved, sums
from kerasft.heads.solved import Linear
from kerasft.heads.sums import Discriminant, Memory, Sums
from kerasft.metrics import Figures
from kerasft.models import bundle
from kerasft.models.bundle import Bundle
from kerasft.models.cut import fingerprint
from kerasft.models.net import Net
from kerasft.models.tta import trained_part, with_sums, with_temperature
from kerasft.novelty import known
from kerasft.novelty.known import MOST, Known, unit
from kerasft.progress import Progress
from kerasft.record import PhaseResult, RunRecord, RunResult, Solving
from kerasft.run import Run, read_record, write_record
from kerasft.sources.photos import SPLITS
from kerasft.training.reopen import computing_versions
from kerasft.updating.photos_gone import Gone, weights_below

log = logging.getLogger("kerasft")

NOT_KNOWN = (
    "The new run has no known.keras, because there are more than %d training photos and the old "
    "ones are gone: photos unlike the training ones are not noticed."
)
HELD_OUT = ("validation", "test")


def write_from_sums(old: Run, new_run: Run, gone: Gone, progress: Progress) -> RunResult:
    """Writes the new run, whole or not at all.

    Args:
        old: the old run.
        new_run: directory of the new one, absent or empty.
        gone: what is known of the photos.
        progress: receiver of events.

    Raises:
        UserError: the directory is not empty, or can't be written; the model of the old run does
            not fit what it has kept.
    """
    refuse_filled(new_run.path)  # before anything is computed
    device = devices.prepare(gone.config.device)
    record = read_record(old)
    began = time.perf_counter()
    before = bundle.load(old.model_path)
    made = _solve(old, gone, before, progress)
    labels = {split: gone.photos.labels[gone.photos.indices(split)] for split in HELD_OUT}
    names, photos = gone.photos.class_names, gone.photos
    rows = {"validation": made.memory.validation, "test": made.memory.test}
    logits = {name: _logits(made.model, gone, rows[name]) for name in HELD_OUT}
    validation = Figures.by_class(logits["validation"], labels["validation"], names)
    calibration, model = None, made.model
    if gone.config.calibrate:
        units = units_of_split(photos, "validation")
        calibration = calibrate(logits["validation"], labels["validation"], units)
        model = with_temperature(model, calibration.temperature)
    temperature = calibration.temperature if calibration else 1.0
    tested = logits["test"] / temperature
    seconds = round(time.perf_counter() - began, 2)
    config, phases = _phases(old, gone, made, record, validation, calibration, seconds)
    record = RunRecord(
        status="finished",
        versions={**record.versions, "kerasft": __version__, **computing_versions()},
        machine=device,
        seed=gone.config.seed,
        seconds=seconds,
        phases=phases,
        best_phase=next(phase.name for phase in reversed(phases) if phase.improved),
        validation=validation,
        test=Figures.by_class(tested, labels["test"], names),
        test_scored=1,
        calibration=calibration,
    )
    with new_folder(new_run.path) as folder:
        run = Run(folder)
        scan.write_splits(photos, run.splits_path)
        scan.write_classes(photos, run.classes_path)
        # Where the folder will lie, since paths are written relative to it.
        write_atomic(run.config_path, to_toml(config, new_run.path))
        paths = [photos.paths[i] for i in photos.indices("test").tolist()]
        table = split_csv(paths, labels["test"], names, softmax(tested), tested)
        write_atomic(run.test_path, table)
        sums.save(made.memory, run.sums_path)
        if made.known:
            known.save(made.known, run.known_path)
        bundle.save(Bundle(model, names, before.rule), run.model_path)
        _check_base(run.model_path, old.model_path, config)
        write_record(run, record)
    return RunResult.of(new_run.path, record)


@dataclass(frozen=True, eq=False)
class _Made:
    """The new model and what is kept of photos; see `Gone`."""

    model: keras.Model
    memory: Memory
    known: Known | None
    solved: Discriminant | None = None
    train: Figures | None = None  # on the new training photos


def _solve(old: Run, gone: Gone, before: Bundle, progress: Progress) -> _Made:
    names, backbone = read_class_names(old.classes_path), gone.config.model.backbone
    number = {name: label for label, name in enumerate(gone.photos.class_names)}
    classes = [number.get(gone.now[name], -1) for name in names]
    rows = read_rows(old.splits_path, len(names))
    held = [_kept(rows, split, classes) for split in HELD_OUT]
    own = Net.of(trained_part(before.model), backbone)
    memory = gone.memory
    sizes = [len(features) for features in (memory.validation, memory.test)]
    width = own.features.shape[1]
    trained = _kept(rows, "train", classes)
    of_class = np.bincount([int(row[1]) for row in rows if row[2] == "train"], minlength=len(names))
    found = np.bincount(memory.sums.class_of, memory.sums.counts)
    if (width, sizes, of_class.tolist()) != (
        len(memory.sums.scatter),
        [len(kept) for kept in held],
        found.tolist(),
    ):
        raise UserError(f"{old.sums_path} belongs to another run than {old.model_path}.")
    seen = _still_known(known.load_beside(old.known_path, before), trained)
    memory = Memory(memory.sums.taken(classes), memory.validation[held[0]], memory.test[held[1]])
    if gone.new is None:
        whole = with_sums(before.model, classes, len(number))
        return _Made(whole, memory, seen)
    features, pretrained = _computed(gone, before, own, seen, progress)
    new_labels = gone.new.labels[gone.new.indices("train")]
    new_sums = Sums.of([(features["train"], new_labels)], len(number))
    memory = Memory(
        memory.sums.plus(new_sums),
        np.concatenate([memory.validation, features["validation"]]),
        np.concatenate([memory.test, features["test"]]),
    )
    labels = gone.photos.labels[gone.photos.indices("validation")]
    solution = sums.solve(memory.sums, memory.validation, labels, len(number))
    form = Linear(None, solution.kernel, solution.bias)
    whole = solved.attach_form(own.base, form, len(solution.class_of))
    if not solution.plain:
        whole = with_sums(whole, solution.class_of.tolist(), len(number))
    fitted = Figures.of(_logits(whole, gone, features["train"]), new_labels)
    return _Made(whole, memory, _with_new(seen, pretrained), solution, fitted)


def _still_known(seen: Known | None, stay: np.ndarray) -> Known | None:
    """Returns the known photos without those of classes that are left out.

    Args:
        seen: known photos of the old run.
        stay: whether each training photo of the old run stays, bool.
    """
    if seen is None or seen.features is None or stay.all():
        return seen
    if len(seen.features) != len(stay):  # a selection, from which no other one can be made
        log.warning(NOT_KNOWN, MOST)
        return None
    return replace(seen, features=seen.features[stay])


def _with_new(seen: Known | None, pretrained: np.ndarray) -> Known | None:
    """Returns the known photos with new ones, whose pretrained features are given."""
    if seen is None or seen.features is None or not len(pretrained):
        return seen
    if len(seen.features) + len(pretrained) > MOST:
        log.warning(NOT_KNOWN, MOST)
        return None
    new = unit(pretrained).astype(np.float16)
    return replace(seen, features=np.concatenate([seen.features, new]))


def _kept(rows: Sequence[Sequence[str]], split: str, classes: Sequence[int]) -> np.ndarray:
    """Returns which photos of a split stay: bool, in the order of splits.csv."""
    return np.array([classes[int(row[1])] >= 0 for row in rows if row[2] == split], bool)


def _computed(
    gone: Gone, before: Bundle, own: Net, seen: Known | None, progress: Progress
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Computes the features of the new photos in each split, and pretrained ones for training."""
    assert gone.new is not None
    pixels = own.model.inputs[0]
    outputs = [own.features]
    if seen is not None:
        below = own.model.get_layer(seen.layer).output if seen.layer else pixels
        outputs.append(seen.model(below))
    model = keras.Model(pixels, outputs)
    features, width = {}, own.features.shape[1]
    pretrained = np.zeros((0, 0), np.float32)
    for split in SPLITS:
        total = len(gone.new.indices(split))
        if not total:
            features[split] = np.zeros((0, width), np.float32)
            continue
        batches = split_batches(gone.new, split, rule=before.rule)
        computed = bundle.compute(model, batches, total=total, what="features", progress=progress)
        parts = computed if isinstance(computed, list) else [computed]
        features[split] = parts[0]
        if split == "train":
            pretrained = parts[-1]
    return features, pretrained


def _logits(model: keras.Model, gone: Gone, rows: np.ndarray) -> np.ndarray:
    """Computes logits [N,K] from features [N,F]."""
    head = Net.of(model, gone.config.model.backbone).cut(0).suffix
    return bundle.compute_rows(head, rows, SCORING_BATCH)


def _phases(
    old: Run,
    gone: Gone,
    made: _Made,
    record: RunRecord,
    validation: Figures,
    calibration: Calibration | None,
    seconds: float,
) -> tuple[Config, tuple[PhaseResult, ...]]:
    """Returns the config and results of the phases: a solved one, or those of the old run."""
    best = max(i for i, phase in enumerate(record.phases) if phase.improved)
    if made.solved is None or made.train is None:
        of_old = tuple(
            replace(
                phase,
                validation=validation,
                val_loss=validation.loss,
                val_accuracy=validation.accuracy,
                calibration=calibration,
            )
            if number == best
            else replace(phase, validation=replace(phase.validation, recall=None))
            for number, phase in enumerate(record.phases)
        )
        return gone.config, of_old
    first = gone.config.phases[0]
    settings = Solved(name=first.name, method="lda")
    how = Solving(
        method="lda",
        parameters={"shrinkage": made.solved.shrinkage},
        tried=tuple(
            {"parameters": {"shrinkage": shrinkage}, "score": loss}
            for shrinkage, loss in made.solved.tried
        ),
        score="log loss on validation",
        notes=(
            "Solved from the sums of photos that are gone, and from new photos. The figures on "
            "training are of the new ones alone.",
        ),
    )
    head = PhaseResult(
        name=first.name,
        blocks=0,
        how=how,
        trainable_parameters=made.solved.kernel.size + made.solved.bias.size,
        seconds=seconds,
        improved=True,
        validation=validation,
        train_loss=made.train.loss,
        train_accuracy=made.train.accuracy,
        val_loss=validation.loss,
        val_accuracy=validation.accuracy,
        calibration=calibration,
    )
    start = {**weights_below(old, record), "phases": [settings.model_dump(exclude_unset=True)]}
    return changed_config(gone.config, start), (head,)


def _check_base(path: Path, old: Path, config: Config) -> None:
    """Refuses a model file whose base has other weights than the old model, bit by bit."""
    written, before = (
        [digest for _, digest in fingerprint(Net.of(model, config.model.backbone).base)]
        for model in (trained_part(bundle.load(one).model) for one in (path, old))
    )
    if written != before:
        raise UserError(f"{path.name}: was written with another base than that of the old model.")
