"""The page of a run: result, photos, curves, confusions, mistakes, calibration, time, use.

    write_light    at the end of training, from what is at hand, within a time limit
    write_page_of  the same with what takes the model: heat maps and nearest training photos

Shapes: N photos of a split, K classes, S side of the model's square input.
"""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from kerasft import __version__
from kerasft.confidence import softmax
from kerasft.data.source import UNUSED, Source
from kerasft.metrics import Figures
from kerasft.record import PhaseResult, RunRecord, Solving
from kerasft.reports.charts import Curve, Marks, line_chart, reliability_chart
from kerasft.reports.measured import Scored, class_rows, reliability
from kerasft.reports.page import interval_text, write_page
from kerasft.reports.pictures import LARGE, ROOM, picture, pictures_of
from kerasft.run import MODEL, REPORT, Run, read_metrics
from kerasft.sources.photos import SPLITS
from kerasft.text import count, printable

SHORT = "the short report that training writes"
"""Words that the page of `write_light` says of itself."""

SHOWN_UNLIKE = 24  # photos unlike the training ones that are shown


class Limits(NamedTuple):
    """How many photos a page shows.

    Attributes:
        samples: photos of a class in each split.
        classes: classes of which there are samples.
        close: mistakes, and as many photos that the model is least certain of.
        cell: photos of a cell of the confusion matrix that holds mistakes.
        cells: photos of all these cells.
        pairs: confused pairs of classes that are listed where the matrix would be too large.
    """

    samples: int
    classes: int
    close: int
    cell: int
    cells: int
    pairs: int = 20


FULL = Limits(samples=4, classes=20, close=12, cell=12, cells=160)
LIGHT = Limits(samples=1, classes=12, close=8, cell=4, cells=40)
LARGEST_MATRIX = 20
"""Largest number of classes for which the confusion matrix is shown."""


@dataclass(frozen=True, eq=False)
class Content:
    """What the page of a run is made of.

    Attributes:
        run: the run.
        record: its record.
        source: its photos.
        scored: scores of model.keras on one split; None if they are not at hand.
    """

    run: Run
    record: RunRecord
    source: Source
    scored: Scored | None


@dataclass(frozen=True, eq=False)
class Closer:
    """What takes the model: more about the photos that are looked at closely.

    Attributes:
        heat: heat map over the input of the model, uint8 [S,S,3], by photo, 0 to N-1.
        nearest: nearest training photos by photo: position in the source, cosine similarity.
        note: why there are no heat maps; "" if there are.
        compared: number of training photos that were compared.
        unlike: photos of the split that are unlike all training photos (`novelty/`), 0 to N-1, each
            with its distance, the farthest first; None if the run can't tell.
        stretched: whether the model's input is the photo stretched to a square.
    """

    heat: Mapping[int, np.ndarray] = field(default_factory=dict)
    nearest: Mapping[int, Sequence[tuple[int, float]]] = field(default_factory=dict)
    note: str = ""
    compared: int = 0
    unlike: Sequence[tuple[int, float]] | None = None
    stretched: bool = True


@dataclass(frozen=True)
class Near:
    """A training photo near to another one."""

    path: str
    picture: str
    label: str
    similarity: float
    same: bool


@dataclass(frozen=True)
class Photo:
    """A photo on the page.

    Attributes:
        path: its path.
        picture: data URI; "" if there is none.
        label, predicted: names of its class and of the predicted one; "" where not scored.
        score, label_score: scores of these two classes.
        right: whether they are the same.
        heat: data URI of its heat map; "" if there is none.
        near: nearest training photos.
    """

    path: str
    picture: str
    label: str = ""
    predicted: str = ""
    score: float = 0.0
    label_score: float = 0.0
    right: bool = True
    heat: str = ""
    near: tuple[Near, ...] = ()


def write_light(
    run: Run,
    source: Source,
    record: RunRecord,
    *,
    scores: np.ndarray | None = None,
    logits: np.ndarray | None = None,
    seconds: float = 2.0,
) -> Path:
    """Writes RUN/report.html from what training has at hand.

    Args:
        run: the run.
        source: its photos.
        record: its record, with the phase that has just ended.
        scores, logits: of model.keras on the validation photos, float32 [N,K], in the order of
            `source.indices("validation")`; None leaves out what is said of single photos.
        seconds: time for the page, half of it for making pictures; photos for which there is no
            time have none.

    Returns:
        Path of the page.

    Raises:
        UserError: the file can't be written.
    """
    scored = None
    if scores is not None and logits is not None:
        temperature = record.calibration.temperature if record.calibration else 1.0
        scored = scored_photos(source, "validation", scores, logits, temperature)
    path = run.path / REPORT
    content = Content(run, record, source, scored)
    write_page_of(path, content, limits=LIGHT, seconds=seconds / 2)
    return path


def is_whole(run: Run) -> bool:
    """Returns whether a run has the page of `write_page_of`, with all that takes its present model.

    The page that training writes is not whole, and one that is older than model.keras is of another
    model.
    """
    page = run.path / REPORT
    if not page.is_file() or page.stat().st_mtime < run.model_path.stat().st_mtime:
        return False
    return SHORT.encode() not in page.read_bytes()


def scored_photos(
    source: Source, split: str, scores: np.ndarray, logits: np.ndarray, temperature: float = 1.0
) -> Scored:
    """Joins the photos of a split and their scores, in the order of `source.indices`.

    Args:
        source: photos of the run.
        split: name of the split.
        scores, logits: of its photos, float32 [N,K].
        temperature: number that the model divides its logits by to get the scores.
    """
    positions = source.indices(split)
    return Scored(
        split=split,
        positions=positions,
        labels=source.labels[positions],
        scores=scores,
        logits=logits,
        class_names=source.class_names,
        temperature=temperature,
    )


def close_photos(scored: Scored, limits: Limits = FULL) -> tuple[list[int], list[int]]:
    """Chooses the photos that are looked at closely: the worst mistakes, the least certain others.

    Returns:
        Photos of the split, 0 to N-1, of both kinds.
    """
    worst = scored.worst_mistakes(limits.close)
    return worst, scored.least_certain(limits.close, worst)


def write_page_of(
    path: Path,
    content: Content,
    *,
    closer: Closer | None = None,
    limits: Limits = FULL,
    seconds: float | None = None,
) -> int:
    """Writes the page of a run.

    Args:
        path: path of the HTML file.
        content: what the page is made of.
        closer: heat maps and neighbours; None leaves them out.
        limits: how many photos are shown.
        seconds: time for making pictures; None makes all.

    Returns:
        Size of the page in bytes.

    Raises:
        UserError: the file can't be written.
    """
    source, scored = content.source, content.scored
    samples = _samples(source, limits)
    worst, unsure = close_photos(scored, limits) if scored else ([], [])
    cells = _cells(scored, limits) if scored else {}
    close = [source.paths[scored.positions[i]] for i in worst + unsure] if scored else []
    near = [source.paths[i] for i in _nearest_of(closer)]
    in_cells = (
        [source.paths[scored.positions[i]] for c in cells.values() for i in c] if scored else []
    )
    unlike = (closer.unlike or ())[:SHOWN_UNLIKE] if closer else ()
    if scored:
        in_cells += [source.paths[scored.positions[i]] for i, _ in unlike]
    in_samples = [source.paths[i] for row in samples.values() for one in row.values() for i in one]
    half = seconds and seconds / 2
    large = pictures_of(source.root, close, side=LARGE, room=ROOM // 2, seconds=half)
    small = pictures_of(source.root, [*near, *in_cells, *in_samples], seconds=half)
    make = _Photos(content, closer, small, large)
    values = {
        "version": __version__,
        "name": content.run.path.resolve().name,
        "light": SHORT if closer is None else "",
        "results": _results(content),
        "sentences": _sentences(content),
        "counts": source.counts(),
        "splits": [split for split in SPLITS if len(source.indices(split))],
        "samples": {
            source.class_names[label]: {
                split: [make.plain(i) for i in positions] for split, positions in row.items()
            }
            for label, row in samples.items()
        },
        "findings": _findings(content),
        "skipped": content.record.skipped,
        "curves": _curves(content),
        "phases": [_phase_row(phase) for phase in content.record.phases],
        "record": content.record,
        "scored": scored,
        "classes": class_rows(scored) if scored else [],
        "matrix": _matrix(scored, cells, make) if scored else None,
        "worst": [make.close(i) for i in worst],
        "unsure": [make.close(i) for i in unsure],
        "mistakes": int((~scored.hits).sum()) if scored else 0,
        "closer": closer,
        "unlike": [(make.of_cell(i), distance) for i, distance in unlike],
        "diagrams": _calibration(scored) if scored else (),
        "times": list(_times(content.record)),
        "run": _typed(content.run.path),
        "model": _typed(content.run.path / MODEL),
        "model_in_python": repr(str(content.run.path / MODEL)),
        "missing_pictures": len({*near, *in_cells, *in_samples} - set(small))
        + len(set(close) - set(large)),
    }
    return write_page(path, "run.html", values)


def _nearest_of(closer: Closer | None) -> list[int]:
    return [i for one in closer.nearest.values() for i, _ in one] if closer else []


def _samples(source: Source, limits: Limits) -> dict[int, dict[str, list[int]]]:
    """Chooses sample photos, evenly over the photos of each class and split."""
    chosen: dict[int, dict[str, list[int]]] = {}
    for label in range(min(len(source.class_names), limits.classes)):
        chosen[label] = {}
        for split in SPLITS:
            there = np.flatnonzero((source.labels == label) & (source.splits == split))
            some = np.linspace(0, len(there) - 1, min(limits.samples, len(there))).astype(int)
            chosen[label][split] = there[some].tolist()
    return chosen


def _cells(scored: Scored, limits: Limits) -> dict[tuple[int, int], list[int]]:
    """Chooses photos of the cells of the confusion matrix; those with most mistakes first."""
    counts = scored.confusion
    k = len(counts)
    wrong = [(i, j) for i, j in np.argwhere(counts).tolist() if i != j]
    wrong.sort(key=lambda cell: -counts[cell])
    if k > LARGEST_MATRIX:
        wrong = wrong[: limits.pairs]
    chosen: dict[tuple[int, int], list[int]] = {}
    left = limits.cells
    for i, j in wrong:
        there = np.flatnonzero((scored.labels == i) & (scored.predicted == j))
        there = there[np.argsort(-scored.confidence[there], kind="stable")]
        chosen[i, j] = there[: min(limits.cell, left)].tolist()
        left -= len(chosen[i, j])
    if k <= LARGEST_MATRIX:
        for i in range(k):
            there = np.flatnonzero((scored.labels == i) & scored.hits)
            if len(there):  # the least certain ones tell more than the others
                order = np.argsort(scored.confidence[there], kind="stable")
                chosen[i, i] = there[order][: limits.samples].tolist()
    return chosen


class _Photos:
    """Makes the photos of a page.

    Args:
        content: what the page is made of.
        closer: heat maps and neighbours, if there are any.
        small, large: data URIs by path.
    """

    def __init__(
        self,
        content: Content,
        closer: Closer | None,
        small: Mapping[str, str],
        large: Mapping[str, str],
    ) -> None:
        self._source, self._scored = content.source, content.scored
        self._closer, self._small, self._large = closer or Closer(), small, large

    def plain(self, position: int) -> Photo:
        """Makes a photo by its position in the source."""
        path = self._source.paths[position]
        return Photo(printable(path), self._small.get(path, ""))

    def of_cell(self, i: int) -> Photo:
        """Makes a small scored photo, 0 to N-1."""
        return self._scored_photo(i, self._small)

    def close(self, i: int) -> Photo:
        """Makes a large scored photo, 0 to N-1, with its heat map and its neighbours."""
        return self._scored_photo(i, self._large)

    def _scored_photo(self, i: int, pictures: Mapping[str, str]) -> Photo:
        scored, closer = self._scored, self._closer
        assert scored is not None
        path = self._source.paths[scored.positions[i]]
        label, predicted = int(scored.labels[i]), int(scored.predicted[i])
        heat = closer.heat.get(i) if pictures is self._large else None
        near = closer.nearest.get(i, ()) if pictures is self._large else ()
        return Photo(
            path=printable(path),
            picture=pictures.get(path, ""),
            label=scored.class_names[label],
            predicted=scored.class_names[predicted],
            score=float(scored.scores[i, predicted]),
            label_score=float(scored.scores[i, label]),
            right=label == predicted,
            heat="" if heat is None else self._heat(heat, pictures.get(path, "")),
            near=tuple(self._near(label, *one) for one in near),
        )

    def _heat(self, heat: np.ndarray, photo: str) -> str:
        """Returns the heat map, in the shape of the photo if the model sees all of it."""
        return picture(heat, photo if self._closer.stretched else "")

    def _near(self, label: int, position: int, similarity: float) -> Near:
        path, other = self._source.paths[position], int(self._source.labels[position])
        return Near(
            path=printable(path),
            picture=self._small.get(path, ""),
            label=self._source.class_names[other],
            similarity=similarity,
            same=other == label,
        )


@dataclass(frozen=True)
class Result:
    """The figures of model.keras on one split, with the accuracy of always naming one class."""

    split: str
    figures: Figures
    base_rate: float
    base_class: str


def _results(content: Content) -> list[Result]:
    """Returns the figures on test and on validation, where they are known."""
    record, scored, source = content.record, content.scored, content.source
    found = {"test": record.test, "validation": record.validation}
    if scored:
        found[scored.split] = scored.figures
    rows = []
    for split, figures in found.items():
        positions = source.indices(split)
        if figures is None or not len(positions):
            continue
        images = np.bincount(source.labels[positions], minlength=len(source.class_names))
        share = float(images.max() / len(positions))
        name = source.class_names[int(images.argmax())]
        rows.append(Result(split, figures, share, name))
    return rows


def _sentences(content: Content) -> list[str]:
    """Says the result in plain words."""
    lines = []
    results = {one.split: one for one in _results(content)}
    for split, one in results.items():
        figures = one.figures
        right = round(figures.accuracy * figures.n)
        role = "which decided nothing" if split == "test" else "which chose the model"
        lines.append(
            f"Of {count(figures.n, f'{split} photo')}, {role}, the model names the right class for "
            f"{right:,}: accuracy {figures.accuracy:.3f}, 95% interval "
            f"{interval_text(figures.interval)}. "
            f"Always naming “{printable(one.base_class)}” would reach {one.base_rate:.3f}."
        )
    if "validation" in results and "test" not in results:
        lines.append(
            "The validation photos chose the best epoch and the best phase, so the accuracy on new "
            "photos is probably a little lower."
        )
    for one in results.values():
        if one.figures.interval[0] <= one.base_rate:
            lines.append(
                f"On {one.split} the interval reaches down to the base rate: the model may have "
                "learned nothing."
            )
        if one.figures.never_predicted:
            names = ", ".join(f"“{printable(n)}”" for n in one.figures.never_predicted[:5])
            more = ", ..." if len(one.figures.never_predicted) > 5 else ""
            lines.append(f"No {one.split} photo is taken for {names}{more}.")
    times = content.record.test_scored
    if times > 1:
        lines.append(
            f"The test photos were scored {times} times. If their figures led to a choice, they "
            "are too high by now."
        )
    return lines


def _findings(content: Content) -> list[str]:
    """Says what reading the photos has shown."""
    source, found = content.source, []
    if source.scan:
        found.append(f"{count(source.scan.files, 'file')} listed as photos.")
    pictures = source.pictures()
    copies = len(pictures) - len(set(pictures))
    if copies:
        found.append(
            f"{count(copies, 'photo')} {'is a copy' if copies == 1 else 'are copies'} of another "
            "one, pixel for pixel. Copies stay in one split."
        )
    near = [name for name in source.near if name]
    if near:
        found.append(
            f"{count(near, 'photo', 'have')} a near copy: the same picture, altered; "
            f"{count(len(set(near)), 'such picture')}."
        )
        in_training = {source.near[i] for i in source.indices("train").tolist()} - {""}
        for split in SPLITS[1:]:
            there = [i for i in source.indices(split).tolist() if source.near[i] in in_training]
            if there:
                found.append(
                    f"{count(there, f'{split} photo', 'have')} a near copy in training, so the "
                    f"figures on {split} are a little too high."
                )
    groups = set(source.groups) - {""}
    if groups:
        found.append(f"{count(len(groups), 'group')} of photos, each kept in one split.")
    unused = len(source.indices(UNUSED))
    if unused:
        found.append(f"{count(unused, 'photo', 'are')} not used by this run.")
    if source.peak:
        found.append(f"Files with 16 bits per colour: the largest number is {source.peak:,}.")
    skipped = len(content.record.skipped)
    found.append(
        f"{count(skipped, 'file')} could not be used and {'was' if skipped == 1 else 'were'} left "
        "out:"
        if skipped
        else "Every file could be read."
    )
    return found


def _curves(content: Content) -> list[str]:
    """Draws loss and accuracy over the epochs of all phases; nothing without two points."""
    from kerasft.plots import BLUE, GREY  # with it comes matplotlib

    by_phase: dict[str, list[Mapping[str, Any]]] = {}
    for row in read_metrics(content.run):
        by_phase.setdefault(row["phase"], []).append(row)
    if sum(map(len, by_phase.values())) < 2:
        return []
    phases = {phase.name: phase for phase in content.record.phases}
    starts, best, chosen, place = [], [], None, 0
    parts: list[tuple[list[int], list[Mapping[str, Any]]]] = []
    for name, rows in by_phase.items():
        epochs = [place + row.get("epoch", 1) for row in rows]
        starts.append((float(place), name))
        if name in phases:
            kept = place + _best_epoch(phases[name])
            if name == content.record.best_phase:
                chosen = float(kept)
            else:
                best.append(float(kept))
        parts.append((epochs, rows))
        place = max(epochs)
    marks = Marks(starts if len(starts) > 1 else (), chosen, best)
    charts = []
    for key, title in (("loss", "log loss"), ("accuracy", "accuracy")):
        curves = [
            Curve(split, epochs, [row[f"{prefix}{key}"] for row in rows], color)
            for epochs, rows in parts
            for split, prefix, color in (("training", "", GREY), ("validation", "val_", BLUE))
        ]
        charts.append(
            line_chart(curves, marks, y=title, top=_top(curves) if key == "loss" else None)
        )
    return charts


def _best_epoch(phase: PhaseResult) -> int:
    return 1 if isinstance(phase.how, Solving) else phase.how.best_epoch


def _top(curves: Sequence[Curve]) -> float | None:
    """Returns the end of the axis where a few large losses would flatten all others."""
    values = np.array([y for curve in curves for y in curve.y], float)
    values = values[np.isfinite(values)]
    if not len(values):
        return None
    usual = 4 * float(np.median(values))
    return usual if values.max() > usual > 0 else None


@dataclass(frozen=True)
class PhaseRow:
    """A line of the table of phases."""

    name: str
    what: str
    parameters: int
    accuracy: float
    loss: float
    seconds: float
    improved: bool


def _phase_row(phase: PhaseResult) -> PhaseRow:
    how = phase.how
    if isinstance(how, Solving):
        what = f"head solved by {how.method}"
    else:
        blocks = "the head" if phase.blocks == 0 else f"head and top blocks: {phase.blocks}"
        best = "the solved head it began with" if how.best_epoch == 0 else f"epoch {how.best_epoch}"
        what = f"{blocks}; {best} of {how.epochs} was the best"
        if how.alpha < 1:
            what += f"; kept: {how.alpha:g} of its change, which was better still"
    figures = phase.validation
    return PhaseRow(
        name=printable(phase.name),
        what=what,
        parameters=phase.trainable_parameters,
        accuracy=figures.accuracy,
        loss=figures.loss,
        seconds=phase.seconds,
        improved=phase.improved,
    )


@dataclass(frozen=True)
class Cell:
    """A cell of the confusion matrix, with some of its photos, the most telling first."""

    label: str
    predicted: str
    key: str
    n: int
    share: float
    right: bool
    photos: tuple[Photo, ...]


@dataclass(frozen=True)
class Matrix:
    """The confusion matrix.

    Attributes:
        rows: cells by label and prediction; () where there are too many classes.
        cells: cells whose photos are shown, the largest mistakes first.
    """

    rows: tuple[tuple[Cell, ...], ...]
    cells: tuple[Cell, ...]


def _matrix(
    scored: Scored, chosen: Mapping[tuple[int, int], Sequence[int]], make: _Photos
) -> Matrix:
    counts, names = scored.confusion, scored.class_names

    def cell(i: int, j: int) -> Cell:
        return Cell(
            label=names[i],
            predicted=names[j],
            key=f"cell-{i}-{j}",
            n=int(counts[i, j]),
            share=float(counts[i, j] / max(1, counts[i].sum())),
            right=i == j,
            photos=tuple(make.of_cell(photo) for photo in chosen.get((i, j), ())),
        )

    k = len(names)
    small = k <= LARGEST_MATRIX
    rows = tuple(tuple(cell(i, j) for j in range(k)) for i in range(k)) if small else ()
    return Matrix(rows, tuple(cell(*pair) for pair in chosen))


def _calibration(scored: Scored) -> tuple[tuple[str, float, str], ...]:
    """Returns title, calibration error and diagram, before and after a temperature."""
    kinds = [("", scored.scores)]
    if scored.temperature != 1:
        kinds = [("before", softmax(scored.logits)), ("after", scored.scores)]
    charts = []
    for title, scores in kinds:
        bins, error = reliability(scores, scored.hits)
        label = f"calibration {title}".strip()
        charts.append((title, error, reliability_chart(bins, title=label)))
    return tuple(charts)


@dataclass(frozen=True)
class Time:
    """A line of the table of times."""

    phase: str
    part: str
    seconds: float
    share: float


def _times(record: RunRecord) -> Iterator[Time]:
    """Yields the parts of all phases, and the rest."""
    total = max(record.seconds, 1e-9)
    rest = record.seconds
    for phase in record.phases:
        for part in phase.parts:
            rest -= part.seconds
            yield Time(printable(phase.name), part.name, part.seconds, part.seconds / total)
    if record.phases and rest > 0:
        yield Time("", "the rest: photos read, models built and saved", rest, rest / total)


def _typed(path: Path) -> str:
    return shlex.quote(printable(str(path)))
