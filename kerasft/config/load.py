"""Configs, read from TOML files and options, and written back to TOML.

`fields.py` defines the fields; `problems.py` turns pydantic's errors into sentences.
"""

import itertools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tomli_w
from pydantic import ValidationError

from kerasft.backbones.compatibility import with_files
from kerasft.config.fields import OWNERS, Config, Data, Phase
from kerasft.config.overrides import (
    NO_RUN,
    PATHS,
    Override,
    absolute,
    make_absolute,
    parse_options,
    put_over,
    read_toml,
)
from kerasft.config.problems import FieldPath, Problem, from_pydantic, repeated_names, report
from kerasft.config.source_names import is_path
from kerasft.errors import UserError
from kerasft.heads.methods import METHODS


def default_phases(weights: str) -> tuple[Phase, ...]:
    """Returns the phases of a config that lists none.

    Args:
        weights: `model.weights` of the config. With "none" all blocks are trained, because there
            is nothing to keep; with anything else a new head is.
    """
    if weights == "none":
        scratch = Phase(
            name="scratch",
            blocks="all",
            batch_norm="train",
            epochs=100,
            learning_rate=1e-3,
            schedule="cosine",
            patience=0,  # the last epochs, at low learning rates, are the best
        )
        return (scratch,)
    return (Phase(name="head", blocks=0, epochs=20, learning_rate=1e-3),)


FULL_RATE = 2e-5  # the Keras guide on transfer learning takes 1e-5 for the whole net


def unfreeze_defaults(config: Config) -> Phase:
    """Returns the phase that `unfreeze-and-continue` appends unless options change it.

    It trains the backbone's default blocks at a learning rate that rises to its highest value in
    the first epoch and falls to 0 (chosen in `scripts/results/bench_accuracy.md`); with the weights
    "sample", all blocks at a high one. Its name is "unfreeze", or "unfreeze-2", ... if that is
    taken.
    """
    name = _free_name("unfreeze", config)
    settings: dict[str, Any]
    if config.model.weights == "sample":
        # That net is small and was pretrained briefly: all of it gains from being trained further.
        settings = {"blocks": "all", "epochs": 20, "learning_rate": 1e-3}
    else:
        settings = {"epochs": 10, "learning_rate": 4e-4}
    return Phase(
        name=name,
        **settings,
        schedule="cosine",
        warmup=0.5,  # of an epoch, so that one epoch alone trains too
        patience=0,  # the last epochs, at low learning rates, are the best
    )


def _free_name(word: str, config: Config) -> str:
    """Returns the word, or "word-2", "word-3", ... if a phase has that name already."""
    taken = {phase.name for phase in config.phases}
    names = itertools.chain([word], (f"{word}-{number}" for number in itertools.count(2)))
    return next(name for name in names if name not in taken)


def load_config(
    path: str | Path | None = None,
    *,
    flags: Mapping[str, object] | None = None,
    sets: Sequence[str] = (),
) -> Config:
    """Reads a config file, puts options over it and checks everything.

    Args:
        path: TOML file; None means the defaults.
        flags: values by dotted key, such as `{"data.source": "photos", "phases.0.epochs": 5}`,
            which replace those of the file. If the file lists no phases, `phases.0` is the
            default phase.
        sets: texts "key=value", such as `["augment.flip=true"]`, which replace values of the file
            and of `flags`. A value is read as TOML, or as text if it is not TOML.

    Returns:
        Config with absolute paths. Relative paths in the file start at the file's folder, those in
        options at the working directory.

    Raises:
        UserError: all problems of the file and the options, in one message. Exit code 2.
    """
    path = None if path is None else Path(path)
    raw = read_toml(path) if path else {}
    make_absolute(raw, path.parent if path else Path())
    given, problems = parse_options(flags or {}, sets)
    # Which phases there are by default depends on the weights, so options for phases come last.
    of_phases = [override for override in given if override.place[0] == "phases"]
    origins, wrong = put_over(raw, [one for one in given if one not in of_phases])
    _add_default_phases(raw, of_phases)
    origins_of_phases, wrong_of_phases = put_over(raw, of_phases)
    _add_default_phases(raw, of_phases)
    raw.setdefault("data", {})
    make_absolute(raw, Path())
    problems += wrong + wrong_of_phases
    return _validated(raw, origins | origins_of_phases, problems, path)


def _add_default_phases(raw: dict[str, Any], options: Sequence[Override]) -> None:
    """Adds the default phases if there are none, and to the first phase its number of blocks."""
    model = raw.get("model")
    weights = model.get("weights", "") if isinstance(model, dict) else ""
    if any(one.place == ("phases", 0, "blocks") and one.value == 0 for one in options):
        weights = ""  # the user wants a head on a random base, not training from scratch
    defaults = default_phases(weights)
    method = _method_in(options, 0)
    if "phases" not in raw and method is not None:
        raw["phases"] = [{"name": _word(method)}]  # the method comes with the option
    phases = raw.setdefault("phases", [phase.model_dump(exclude_unset=True) for phase in defaults])
    first = phases[0] if isinstance(phases, list) and phases else None
    if isinstance(first, dict) and method is None and "method" not in first:
        first.setdefault("blocks", defaults[0].blocks)


def _method_in(options: Sequence[Override], *indices: int) -> object | None:
    """Returns the method that the options give a phase; None if they give it none."""
    places = [("phases", index, "method") for index in indices]
    return next((one.value for one in options if one.place in places), None)


def _word(method: object) -> str:
    """Returns the name of a phase with a method. An unknown method is reported elsewhere."""
    return str(method) if method in METHODS else "solved"


def _validated(
    raw: dict[str, Any],
    origins: Mapping[FieldPath, str],
    problems: list[Problem],
    path: Path | None,
) -> Config:
    try:
        config = Config.model_validate(raw)
    except ValidationError as error:
        found = from_pydantic(error, Config, origins=origins)
        phases = raw["phases"] if isinstance(raw["phases"], list | tuple) else ()
        named = [
            Problem(one.place, one.text, origins.get(one.place, ""))
            for one in repeated_names(phases)
        ]
        problems = sorted([*found, *named, *problems], key=lambda problem: bool(problem.origin))
    if problems:
        raise UserError(report(problems, path), exit_code=2)
    return config


def changed(config: Config, flags: Mapping[str, object], sets: Sequence[str] = ()) -> Config:
    """Returns a config with other values of some fields, checked like those of `load_config`.

    Args:
        config: config of a run.
        flags: values by dotted key; `"phases"` alone replaces all phases.
        sets: texts "key=value", as in `load_config`.

    Raises:
        UserError: all problems of the values, in one message. Exit code 2.
    """
    raw = config.model_dump(exclude_unset=True)
    given, problems = parse_options(flags, sets)
    origins, wrong = put_over(raw, given)
    make_absolute(raw, Path())
    return _validated(raw, origins, problems + wrong, None)


def append_phase(
    config: Config, *, flags: Mapping[str, object] | None = None, sets: Sequence[str] = ()
) -> Config:
    """Returns the config with one more phase: `unfreeze_defaults`, with options put over it.

    Args:
        config: config of a run.
        flags, sets: options as in `load_config`. They can set fields of the new phase only, which
            is `phases.-1`, or `phases.N` with its number. With blocks = "all" alone the learning
            rate is FULL_RATE.

    Raises:
        UserError: all problems of the options, in one message. Exit code 2.
    """
    new = len(config.phases)
    given, problems = parse_options(flags or {}, sets)
    method = _method_in(given, -1, new)
    added = unfreeze_defaults(config).model_dump(exclude_unset=True)
    if method is not None:
        added = {"name": _free_name(_word(method), config)}
    trains_all = added.get("blocks") == "all"
    raw = {**dict(config), "phases": [*config.phases, added]}
    reaching = [one for one in given if one.place[:2] in (("phases", -1), ("phases", new))]
    fixed = f"the run's config is fixed; only the new phase can be set, phases.{new}."
    problems += [Problem(one.place, fixed, one.origin) for one in given if one not in reaching]
    origins, wrong = put_over(raw, reaching)
    typed = {one.place[-1] for one in reaching}
    deeper = added.get("blocks") == "all" and not trains_all
    if deeper and method is None and "learning_rate" not in typed:
        added["learning_rate"] = FULL_RATE
    return _validated(raw, origins, problems + wrong, None)


def data_at(
    source: str | Path, data: Data | None = None, flags: Mapping[str, object] | None = None
) -> Data:
    """Returns the section `data` for photos that are in another place now.

    Args:
        source: new `data.source`, a path relative to the working directory, or the name of a TFDS
            dataset. `data.data_dir` is dropped, because another machine may keep its datasets
            elsewhere; the environment decides.
        data: section with the other settings; None means the defaults.
        flags: values of fields of the section by dotted key, such as
            `{"data.layout": "classes"}`, which replace those of `data`.

    Raises:
        UserError: not the name of a source, or it does not exist. Exit code 2.
    """
    raw = data.model_dump(exclude_unset=True) if data else {}
    raw |= {"source": absolute(source, Path()) if source else source, "data_dir": None}
    raw |= {key.removeprefix("data."): value for key, value in (flags or {}).items()}
    try:
        moved = Data.model_validate(raw)
    except ValidationError as error:
        found = from_pydantic(error, Data, origins={})
        problems = [
            Problem(("data", *one.place), one.text, "data" if "source" in one.place else "flags")
            for one in found
        ]
        raise UserError(report(problems, None), exit_code=2) from error
    if is_path(moved.source) and not os.path.exists(moved.source):
        raise UserError(f"{source}: no such file or folder.", field="data", exit_code=2)
    return moved


def to_toml(config: Config, folder: Path) -> str:
    """Writes every setting as TOML, which `load_config` reads back as an equal config.

    Args:
        config: config to write.
        folder: folder of the file. Paths are written relative to it if possible.
    """
    tree = config.model_dump(exclude_none=True)
    for section, key in PATHS:
        value = tree[section].get(key)
        if key == "weights":
            tree[section][key] = with_files(value, lambda path: _relative(path, folder))
        elif key == "added":
            tree[section][key] = [_relative(one, folder) if is_path(one) else one for one in value]
        elif value is not None and value != NO_RUN and is_path(value):
            tree[section][key] = _relative(value, folder)
    for key in ("added", "classes"):
        if not tree["data"][key]:
            del tree["data"][key]
    for phase in tree["phases"]:
        for field, owner in OWNERS.items():
            if phase.get("optimizer", owner) != owner:
                del phase[field]
    return tomli_w.dumps(tree)


def _relative(path: str, folder: Path) -> str:
    absolute = os.path.abspath(path)
    try:
        return Path(os.path.relpath(absolute, os.path.realpath(folder))).as_posix()
    except ValueError:  # on another drive of Windows
        return Path(absolute).as_posix()
