import os
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from kerasft.config.fields import Augment, Cache, Config, Data, Head, Model, Phase
from kerasft.config.load import (
    append_phase,
    data_at,
    default_phases,
    load_config,
    to_toml,
    unfreeze_defaults,
)
from kerasft.errors import UserError

ROOT = Path(__file__).resolve().parent.parent.parent
PHOTOS = {"data.source": "photos"}


@pytest.fixture
def write(tmp_path):
    """Writes a config file and returns its path."""

    def write(text):
        path = tmp_path / "mine.toml"
        path.write_text(text, "utf-8")
        return path

    return write


def refusal(path=None, flags=None, sets=()):
    with pytest.raises(UserError) as refused:
        load_config(path, flags=flags, sets=sets)
    assert refused.value.exit_code == 2
    return str(refused.value)


def problem(*sets, flags=None):
    """The one line of the refusal of these options."""
    heading, line = refusal(flags={**PHOTOS, **(flags or {})}, sets=sets).splitlines()
    assert heading == "the options have 1 problem:"
    return line.strip()


def a_phase(**fields):
    return Phase(**{"name": "p", "blocks": 2, "epochs": 4, "learning_rate": 0.1} | fields)


# ── defaults ──


def test_data_alone_is_a_whole_config(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert load_config(None, flags=PHOTOS).model_dump() == {
        "seed": 0,
        "device": "auto",
        "tensorboard": False,
        "calibrate": True,
        "report": True,
        "data": {
            "source": str(tmp_path / "photos"),
            "layout": "auto",
            "columns": (),
            "label_from": None,
            "data_dir": None,
            "added": (),
            "classes": {},
            "validation": 0.15,
            "test": 0.15,
            "fraction": 1.0,
            "splits_from": None,
            "bad_images": "fail",
            "small_classes": "refuse",
            "near_copies": "group",
            "resize": "stretch",
            "background": "white",
            "depth": "auto",
        },
        "model": {"backbone": "MobileNetV2", "weights": "imagenet", "image_size": None},
        "head": {"features": "pooled", "leave_out": 0, "hidden": (), "dropout": 0.2},
        "augment": {
            "flip": True,
            "crop": 0.5,
            "color": 0.0,
            "views": None,
            "mixup": 0.2,
            "test_time": "none",
        },
        "cache": {
            "mode": "auto",
            "engine": "auto",
            "batch": None,
            "precision": "auto",
            "dtype": "auto",
        },
        "phases": (
            {
                "name": "head",
                "blocks": 0,
                "head_start": "auto",
                "epochs": 20,
                "learning_rate": 0.001,
                "batch_size": 32,
                "accumulate": 1,
                "ema": 0.0,
                "batch_norm": "frozen",
                "optimizer": "adam",
                "weight_decay": 0.004,
                "l2_sp": 0.0,
                "co_tuning": 0.0,
                "momentum": 0.9,
                "schedule": "constant",
                "warmup": 0.0,
                "head_learning_rate_multiplier": 1.0,
                "layer_decay": 1.0,
                "patience": 5,
                "class_weight": "none",
                "label_smoothing": 0.0,
                "wise": True,
                "precision": "auto",
                "stored": None,
            },
        ),
    }


def test_without_weights_everything_is_trained_by_default():
    config = load_config(None, flags={**PHOTOS, "model.weights": "none"})
    assert config.phases == default_phases("none")
    phase = config.phases[0]
    assert (phase.name, phase.blocks, phase.batch_norm, phase.epochs) == (
        "scratch",
        "all",
        "train",
        100,
    )


# ── the weights in the package ──


def test_the_weights_of_the_sample_bring_their_net_and_its_side(write, tmp_path):
    path = write("[model]\nweights = 'sample'\n")
    for config in (
        load_config(None, flags={**PHOTOS, "model.weights": "sample"}),
        load_config(path, flags=PHOTOS),
        Config(
            data=Data(source=Path("p")), model=Model(weights="sample"), phases=default_phases("")
        ),
    ):
        assert config.model == Model(
            backbone="MobileNetV2:alpha=0.35", weights="sample", image_size=96
        )
        assert config.phases[0].name == "head"
    assert reloaded(config, tmp_path / "runs").model == config.model


def test_on_the_weights_of_the_sample_all_of_the_net_is_unfrozen():
    config = load_config(None, flags={**PHOTOS, "model.weights": "sample"})
    assert unfreeze_defaults(config) == Phase(
        name="unfreeze",
        blocks="all",
        epochs=20,
        learning_rate=0.001,
        schedule="cosine",
        warmup=0.5,
        patience=0,
    )


def test_the_weights_of_the_sample_leave_what_is_typed():
    flags = {**PHOTOS, "model.weights": "sample", "model.image_size": 64}
    model = load_config(None, flags=flags, sets=["model.backbone=MobileNetV2:alpha=.35"]).model
    assert (model.backbone, model.image_size) == ("MobileNetV2:alpha=.35", 64)


@pytest.mark.parametrize("backbone", ["ResNet50", "MobileNetV2", "MobileNetV2:alpha=1.0"])
def test_the_weights_of_the_sample_fit_no_other_net(backbone):
    flags = {**PHOTOS, "model.weights": "sample", "model.backbone": backbone}
    with pytest.raises(UserError) as caught:
        load_config(None, flags=flags)
    assert caught.value.exit_code == 2
    assert str(caught.value) == (
        "the options have 1 problem:\n"
        "  model.weights (`flags`): 'sample' fits only MobileNetV2:alpha=0.35, got backbone "
        f"'{backbone}'. Leave the backbone out, or choose other weights."
    )


def test_an_unknown_backbone_beside_the_weights_of_the_sample_is_one_problem():
    with pytest.raises(UserError, match="the options have 1 problem"):
        load_config(None, flags={**PHOTOS, "model.weights": "sample", "model.backbone": "Mobile"})


def test_every_field_says_what_it_is():
    def undescribed(model):
        for name, field in model.model_fields.items():
            if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
                continue  # a section: its docstring says it
            if not field.description:
                yield f"{model.__name__}.{name}"

    assert [
        w for m in (Config, Data, Model, Head, Augment, Cache, Phase) for w in undescribed(m)
    ] == []


def test_a_config_cannot_be_changed():
    config = load_config(None, flags=PHOTOS)
    with pytest.raises(ValidationError):
        config.seed = 1


# ── file and options ──


def test_options_go_over_the_file_and_set_over_flags(write):
    path = write("seed = 1\n[data]\nsource = 'photos'\n[head]\ndropout = 0.1\nhidden = [64]\n")
    config = load_config(path, flags={"seed": 2, "head.dropout": 0.3}, sets=["seed=3"])
    assert (config.seed, config.head) == (3, Head(hidden=(64,), dropout=0.3))


def test_paths_in_a_file_are_relative_to_it_and_typed_ones_to_the_working_directory(
    write, tmp_path, monkeypatch
):
    path = write("[data]\nsource = '../photos'\n[model]\nweights = 'mine.h5'\n")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    config = load_config(path)
    assert config.data.source == str(tmp_path.parent / "photos")
    assert config.model.weights == str(tmp_path / "mine.h5")
    config = load_config(path, flags=PHOTOS, sets=["model.weights=other.keras"])
    assert config.data.source == str(tmp_path / "elsewhere" / "photos")
    assert config.model.weights == str(tmp_path / "elsewhere" / "other.keras")


def test_set_reaches_the_default_phase():
    config = load_config(None, flags={**PHOTOS, "phases.0.epochs": 3}, sets=["phases.0.patience=0"])
    assert config.phases == (
        Phase(name="head", blocks=0, epochs=3, learning_rate=0.001, patience=0),
    )


def test_set_reaches_the_default_phase_of_the_weights_that_were_typed():
    config = load_config(None, flags=PHOTOS, sets=["phases.0.epochs=3", "model.weights=none"])
    assert (config.phases[0].name, config.phases[0].epochs) == ("scratch", 3)


@pytest.mark.parametrize(("weights", "first"), [("imagenet", 0), ("none", "all")])
def test_the_first_phase_of_a_file_has_blocks_and_later_ones_leave_them_to_the_backbone(
    write, weights, first
):
    phase = "[[phases]]\nepochs = 1\nlearning_rate = 1\n"
    path = write(f"{phase}name = 'a'\n{phase}name = 'b'\n")
    config = load_config(path, flags={**PHOTOS, "model.weights": weights})
    assert [phase.blocks for phase in config.phases] == [first, None]


def test_whole_numbers_are_fine_where_fractions_are_expected():
    phase = load_config(None, flags=PHOTOS, sets=["phases.0.learning_rate=1"]).phases[0]
    assert (phase.learning_rate, type(phase.learning_rate)) == (1.0, float)


# ── problems ──


def test_all_problems_of_a_file_are_said_at_once(write):
    path = write("[data]\nsource='.'\n[model]\nbackbon='X'\n[[phases]]\nname='a'\nepochs='5'\n")
    assert refusal(path) == (
        f"{path} has 3 problems:\n"
        "  model.backbon: unknown key. Did you mean 'backbone'?\n"
        "  phases[0].epochs: expected int, got '5'.\n"
        "  phases[0].learning_rate: missing."
    )


def test_problems_of_file_and_options_are_said_at_once_and_told_apart(write):
    path = write(
        "seed = 'x'\n[modl]\nx = 1\n"
        "[[phases]]\nname = 'a'\nepochs = 1\nlearning_rate = 1.0\n"
        "[[phases]]\nname = 'a'\nepochs = 1\nlearning_rate = 0.0\nwarmup = 2\n"
    )
    sets = ["phases.0.epoch=2", "phases.2.epochs=1", "epochs"]
    assert refusal(path, {"phases.0.batch_size": 0, "device": "tpu"}, sets) == (
        f"{path} and the options have 11 problems:\n"
        "  seed: expected int, got 'x'.\n"
        "  data.source: missing. Pass `data.source=SRC`.\n"
        "  phases[1].learning_rate: expected more than 0, got 0.0.\n"
        "  phases[1].warmup: expected at most 1, the epochs of the phase, got 2.\n"
        "  modl: unknown key. Did you mean 'model'?\n"
        "  phases[1].name: phases[0] is already called 'a'.\n"
        "  device (`flags`): expected 'auto', 'cpu' or 'gpu:N', got 'tpu'.\n"
        "  phases[0].batch_size (`flags`): expected more than 0, got 0.\n"
        "  phases[0].epoch (`sets`): unknown key. Did you mean 'epochs'?\n"
        "  `sets`: expected KEY=VALUE, e.g. phases.0.epochs=5, got 'epochs'.\n"
        "  phases[2].epochs (`sets`): no such field: phases has 2 entries, counted from 0."
    )


def test_missing_data_names_the_field():
    assert (
        refusal() == "the options have 1 problem:\n  data.source: missing. Pass `data.source=SRC`."
    )


def test_a_file_without_phases_to_train_is_refused(write):
    path = write("phases = []\n[data]\nsource = ''\n")
    assert refusal(path) == (
        f"{path} has 2 problems:\n"
        "  data.source: expected a folder, got ''.\n"
        "  phases: expected at least one phase, got none."
    )


def test_values_where_sections_belong_are_refused(write):
    path = write("data = 5\nhead = 'big'\nphases = 'all'\n")
    assert refusal(path) == (
        f"{path} has 3 problems:\n"
        "  data: expected a section, got 5.\n"
        "  head: expected a section, got 'big'.\n"
        "  phases: expected a list, got 'all'."
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("seed=-1", "seed (`sets`): expected at least 0, got -1."),
        ("seed=true", "seed (`sets`): expected int, got True."),
        ("seed=1.0", "seed (`sets`): expected int, got 1.0."),
        ("device=gpu", "device (`sets`): expected 'auto', 'cpu' or 'gpu:N', got 'gpu'."),
        ("data.validation=0", "data.validation (`sets`): expected more than 0, got 0."),
        ("data.validation=0.6", "data.validation (`sets`): expected at most 0.5, got 0.6."),
        ("data.test=-0.1", "data.test (`sets`): expected at least 0, got -0.1."),
        ("data.test=nan", "data.test (`sets`): expected a finite number, got nan."),
        (
            "data.bad_images=skipp",
            "data.bad_images (`sets`): expected 'fail' or 'skip', got 'skipp'. Did you mean "
            "'skip'?",
        ),
        (
            "data.resize=fit",
            "data.resize (`sets`): expected 'stretch', 'crop' or 'pad', got 'fit'.",
        ),
        ("model.backbone=", "model.backbone (`sets`): expected a name, got ''."),
        ("model.image_size=0", "model.image_size (`sets`): expected more than 0, got 0."),
        ("model.image_size=big", "model.image_size (`sets`): expected int, got 'big'."),
        (
            "model.weights=imagnet",
            "model.weights (`sets`): expected 'imagenet', 'sample', 'none', a run directory or "
            "a file that ends in .h5 or .keras, got 'imagnet'. Did you mean 'imagenet'?",
        ),
        ("head.hidden=256", "head.hidden (`sets`): expected a list, got 256."),
        (
            "head.hidden=[9, 0]",
            "head.hidden (`sets`): expected numbers greater than 0, got [9, 0].",
        ),
        ("head.dropout=1", "head.dropout (`sets`): expected less than 1, got 1."),
        ("augment.flip=1", "augment.flip (`sets`): expected bool, got 1."),
        ("augment.crop=1", "augment.crop (`sets`): expected less than 1, got 1."),
        ("augment.color=2", "augment.color (`sets`): expected at most 1, got 2."),
        (
            "phases.0.name=a/b",
            "phases[0].name (`sets`): expected letters, digits, '-' and '_', got 'a/b'.",
        ),
        (
            "phases.0.blocks=-1",
            "phases[0].blocks (`sets`): expected int, at least 0, or 'all', got -1.",
        ),
        (
            "phases.0.blocks=true",
            "phases[0].blocks (`sets`): expected int, at least 0, or 'all', got True.",
        ),
        ("phases.0.epochs=five", "phases[0].epochs (`sets`): expected int, got 'five'."),
        ("phases.0.learning_rate=x", "phases[0].learning_rate (`sets`): expected float, got 'x'."),
        (
            "phases.0.learning_rate=inf",
            "phases[0].learning_rate (`sets`): expected a finite number, got inf.",
        ),
        (
            "phases.0.optimizer=adamm",
            "phases[0].optimizer (`sets`): expected 'adam', 'adamw' or 'sgd', got 'adamm'. "
            "Did you mean 'adam'?",
        ),
        ("phases.0.layer_decay=0", "phases[0].layer_decay (`sets`): expected more than 0, got 0."),
        (
            "phases.0.label_smoothing=1",
            "phases[0].label_smoothing (`sets`): expected less than 1, got 1.",
        ),
        ("phases.0.patience=-1", "phases[0].patience (`sets`): expected at least 0, got -1."),
        ("epochs=5", "epochs (`sets`): unknown key. Did you mean 'phases.0.epochs'?"),
        ("mdel.backbone=X", "mdel (`sets`): unknown key. Did you mean 'model'?"),
    ],
)
def test_a_value_out_of_type_or_range_is_one_sentence(text, expected):
    assert problem(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "phases.0.weight_decay=0.004",  # its default too: written out, it would be ignored
            "phases[0].weight_decay (`sets`): has no effect with optimizer = 'adam', only with "
            "'adamw'.",
        ),
        (
            "phases.0.momentum=0.5",
            "phases[0].momentum (`sets`): has no effect with optimizer = 'adam', only with 'sgd'.",
        ),
        (
            "phases.0.batch_norm=train",
            "phases[0].batch_norm (`sets`): has no effect with blocks = 0, where only the head is "
            "trained.",
        ),
        (
            "phases.0.layer_decay=0.5",
            "phases[0].layer_decay (`sets`): has no effect with blocks = 0, where only the head is "
            "trained.",
        ),
        (
            "phases.0.warmup=20.5",
            "phases[0].warmup (`sets`): expected at most 20, the epochs of the phase, got 20.5.",
        ),
    ],
)
def test_fields_that_mean_nothing_together_are_refused(text, expected):
    assert problem(text) == expected


@pytest.mark.parametrize(
    "sets",
    [
        ["phases.0.weight_decay=0.004", "phases.0.optimizer=adamw"],
        ["phases.0.momentum=0.5", "phases.0.optimizer=sgd"],
        ["phases.0.batch_norm=train", "phases.0.blocks=1"],
        ["phases.0.layer_decay=0.5", "phases.0.blocks=all"],
        ["phases.0.warmup=20", "phases.0.schedule=cosine"],
    ],
)
def test_fields_that_belong_together_are_taken(sets):
    load_config(None, flags=PHOTOS, sets=sets)  # the control of the test above


def test_the_python_way_refuses_two_phases_of_one_name():
    with pytest.raises(ValidationError, match=r"phases\[0\] is already called 'p'"):
        Config(data=Data(source=Path("photos")), phases=(a_phase(), a_phase()))


# ── appending a phase ──


def test_the_appended_phase_has_the_defaults_of_unfreezing():
    config = load_config(None, flags=PHOTOS)
    longer = append_phase(config)
    assert longer.phases == (
        *config.phases,
        Phase(
            name="unfreeze",
            epochs=10,
            learning_rate=4e-4,
            schedule="cosine",
            warmup=0.5,
            patience=0,
        ),
    )
    assert longer.model_copy(update={"phases": config.phases}) == config


def test_each_appended_phase_has_a_name_of_its_own():
    config = load_config(None, flags=PHOTOS)
    for _ in range(3):
        config = append_phase(config)
    names = [phase.name for phase in config.phases]
    assert names == ["head", "unfreeze", "unfreeze-2", "unfreeze-3"]
    assert unfreeze_defaults(config).name == "unfreeze-4"


def test_options_reach_the_appended_phase_from_the_end_or_by_its_number():
    config = append_phase(
        load_config(None, flags=PHOTOS),
        flags={"phases.-1.epochs": 3, "phases.-1.blocks": "all"},
        sets=["phases.1.name=deep", "phases.-1.batch_norm=train"],
    )
    assert config.phases[1] == Phase(
        name="deep",
        blocks="all",
        epochs=3,
        learning_rate=2e-5,
        batch_norm="train",
        schedule="cosine",
        warmup=0.5,
        patience=0,
    )


def test_options_reach_nothing_but_the_appended_phase():
    config = load_config(None, flags=PHOTOS)
    with pytest.raises(UserError) as refused:
        append_phase(
            config,
            flags={"phases.-1.epochs": 0, "phases.0.epochs": 3},
            sets=["phases.-1.name=head", "seed=4", "phases=[]", "phases.1.epoch=2", "x"],
        )
    fixed = "the run's config is fixed; only the new phase can be set, phases.1."
    assert str(refused.value) == (
        "the options have 7 problems:\n"
        "  phases[1].epochs (`flags`): expected more than 0, got 0.\n"
        "  phases[1].epoch (`sets`): unknown key. Did you mean 'epochs'?\n"
        "  phases[1].name (`sets`): phases[0] is already called 'head'.\n"
        "  `sets`: expected KEY=VALUE, e.g. phases.0.epochs=5, got 'x'.\n"
        f"  phases[0].epochs (`flags`): {fixed}\n"
        f"  seed (`sets`): {fixed}\n"
        f"  phases (`sets`): {fixed}"
    )
    assert refused.value.exit_code == 2


# ── back to TOML ──


def reloaded(config, folder):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.toml").write_text(to_toml(config, folder), "utf-8")
    return load_config(folder / "config.toml")


def test_the_run_of_the_splits_is_a_path_but_for_the_word_none(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    named = load_config(flags=PHOTOS, sets=["data.splits_from=runs/first"])
    assert named.data.splits_from == str(tmp_path / "runs" / "first")
    assert 'splits_from = "../first"' in to_toml(named, Path("runs/second"))
    assert reloaded(named, tmp_path / "runs" / "second") == named
    anew = load_config(flags=PHOTOS, sets=["data.splits_from=none"])
    assert anew.data.splits_from == "none"
    assert reloaded(anew, tmp_path / "runs" / "third") == anew
    with pytest.raises(UserError, match="expected a run directory or 'none', got ''"):
        load_config(flags={**PHOTOS, "data.splits_from": ""})


def test_a_config_is_written_whole_with_paths_relative_to_its_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = load_config(None, flags={**PHOTOS, "model.weights": "mine.h5"})
    assert to_toml(config, Path("runs/photos")) == (
        'seed = 0\ndevice = "auto"\ntensorboard = false\ncalibrate = true\nreport = true\n\n'
        '[data]\nsource = "../../photos"\nlayout = "auto"\ncolumns = []\n'
        "validation = 0.15\ntest = 0.15\n"
        'fraction = 1.0\nbad_images = "fail"\nsmall_classes = "refuse"\n'
        'near_copies = "group"\nresize = "stretch"\n'
        'background = "white"\ndepth = "auto"\n\n'
        '[model]\nbackbone = "MobileNetV2"\nweights = "../../mine.h5"\n\n'
        '[head]\nfeatures = "pooled"\nleave_out = 0\nhidden = []\ndropout = 0.2\n\n'
        '[augment]\nflip = true\ncrop = 0.5\ncolor = 0.0\nmixup = 0.2\ntest_time = "none"\n\n'
        '[cache]\nmode = "auto"\nengine = "auto"\nprecision = "auto"\ndtype = "auto"\n\n'
        '[[phases]]\nname = "head"\nblocks = 0\nhead_start = "auto"\nepochs = 20\n'
        "learning_rate = 0.001\nbatch_size = 32\naccumulate = 1\nema = 0.0\n"
        'batch_norm = "frozen"\noptimizer = "adam"\nl2_sp = 0.0\nco_tuning = 0.0\n'
        'schedule = "constant"\n'
        "warmup = 0.0\nhead_learning_rate_multiplier = 1.0\nlayer_decay = 1.0\npatience = 5\n"
        'class_weight = "none"\nlabel_smoothing = 0.0\nwise = true\nprecision = "auto"\n'
    )


def test_a_written_config_loads_back_equal_from_a_folder_that_was_moved(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sets = ["phases.0.optimizer=adamw", "phases.0.weight_decay=1e-5", "model.image_size=96"]
    config = append_phase(load_config(None, flags={"data.source": "a/photos"}, sets=sets))
    assert reloaded(config, tmp_path / "a" / "runs") == config
    os.rename(tmp_path / "a", tmp_path / "b")
    moved = load_config(tmp_path / "b" / "runs" / "config.toml")
    assert moved.data.source == str(tmp_path / "b" / "photos")


def test_a_run_folder_that_is_a_link_finds_the_same_photos(tmp_path):
    (tmp_path / "far" / "away").mkdir(parents=True)
    (tmp_path / "runs").symlink_to(tmp_path / "far" / "away")
    config = load_config(None, flags={"data.source": tmp_path / "photos"})
    assert reloaded(config, tmp_path / "runs") == config
    assert load_config(tmp_path / "far" / "away" / "config.toml") == config


positive = st.floats(min_value=1e-12, max_value=1e6)
phases = st.builds(
    Phase,
    name=st.from_regex(r"[a-z0-9_-]{1,9}", fullmatch=True),
    blocks=st.integers(1, 99) | st.just("all"),
    epochs=st.integers(50, 10**6),
    learning_rate=positive,
    batch_size=st.integers(1, 10**6),
    schedule=st.sampled_from(["constant", "cosine"]),
    warmup=st.floats(0, 50),
    layer_decay=st.floats(min_value=1e-9, max_value=1),
    label_smoothing=st.floats(0, 0.99),
) | st.builds(
    Phase,
    name=st.just("sgd"),
    blocks=st.just(0),
    epochs=st.just(1),
    learning_rate=positive,
    optimizer=st.just("sgd"),
    momentum=st.floats(0, 0.99),
)
configs = st.builds(
    Config,
    seed=st.integers(min_value=0),
    device=st.sampled_from(["auto", "cpu", "gpu:3"]),
    data=st.builds(
        Data,
        source=st.text(st.characters(codec="utf-8", exclude_characters="\0/."), min_size=1).map(
            lambda name: Path("/photos") / name
        ),
        validation=st.floats(0.001, 0.5),
        bad_images=st.sampled_from(["fail", "skip"]),
    ),
    model=st.builds(Model, image_size=st.none() | st.integers(1, 4096)),
    head=st.builds(Head, hidden=st.lists(st.integers(1, 10**6)).map(tuple)),
    phases=st.lists(phases, min_size=1, unique_by=lambda phase: phase.name).map(tuple),
)


@given(configs)
def test_any_config_loads_back_equal(tmp_path_factory, config):
    assert reloaded(config, tmp_path_factory.getbasetemp() / "round") == config


def test_nothing_but_known_toml_is_written():
    tree = tomllib.loads(to_toml(load_config(None, flags=PHOTOS), Path()))
    sections = ["data", "model", "head", "augment", "cache", "phases"]
    assert list(tree) == ["seed", "device", "tensorboard", "calibrate", "report", *sections]


def test_an_unknown_backbone_is_told_with_the_other_problems():
    flags = {**PHOTOS, "model.backbone": "MobilNetV2:alpha=1"}
    with pytest.raises(UserError) as caught:
        load_config(None, flags=flags, sets=["phases.0.epochs=0"])
    lines = str(caught.value).splitlines()
    assert lines[0] == "the options have 2 problems:"
    assert "  phases[0].epochs (`sets`): expected more than 0, got 0." in lines
    assert lines[1].startswith(
        "  model.backbone (`flags`): unknown name 'MobilNetV2'. Did you mean 'MobileNetV2'? "
    )


# ── where the photos are ──


def test_a_set_of_tfds_is_no_path_and_its_folder_is_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = load_config(
        None, flags={"data.source": "tfds:tf_flowers"}, sets=["data.data_dir=sets"]
    )
    assert (config.data.source, config.data.data_dir) == ("tfds:tf_flowers", f"{tmp_path}/sets")
    text = to_toml(config, tmp_path / "runs" / "flowers")
    assert 'source = "tfds:tf_flowers"\ndata_dir = "../../sets"\n' in text
    assert reloaded(config, tmp_path / "runs" / "flowers") == config


def test_a_source_that_is_no_name_of_tfds_is_told_with_the_other_problems():
    with pytest.raises(UserError) as error:
        load_config(None, flags={"data.source": "tfds:a b"}, sets=["seed=x"])
    assert str(error.value).splitlines() == [
        "the options have 2 problems:",
        "  seed (`sets`): expected int, got 'x'.",
        "  data.source (`flags`): expected tfds:NAME, tfds:NAME:CONFIG or "
        "tfds:NAME:CONFIG:VERSION, such as tfds:tf_flowers or tfds:imagenette:160px.",
    ]


def test_a_folder_of_sets_means_nothing_without_tfds():
    assert refusal(flags={**PHOTOS, "data.data_dir": "sets"}) == (
        "the options have 1 problem:\n  data.data_dir (`flags`): has no effect with a source that "
        "does not begin with 'tfds:'."
    )


def test_a_folder_called_none_is_a_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = load_config(None, flags={"data.source": "none"})
    assert config.data.source == str(tmp_path / "none")
    assert reloaded(config, tmp_path / "run") == config


def test_photos_that_are_elsewhere_now_change_nothing_else(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos.zip").touch()
    before = Data(source="tfds:mnist", data_dir="/sets", test=0.2, bad_images="skip")
    assert data_at("photos.zip", before) == Data(
        source=f"{tmp_path}/photos.zip", test=0.2, bad_images="skip"
    )
    assert data_at("tfds:mnist:3.0.1", before).data_dir is None
    assert data_at(Path("photos.zip")) == Data(source=f"{tmp_path}/photos.zip")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("nowhere.csv", "data: nowhere.csv: no such file or folder."),
        ("", "the options have 1 problem:\n  data.source (`data`): expected a folder, got ''."),
        ("tfds:", "the options have 1 problem:\n  data.source (`data`): expected tfds:NAME, "),
    ],
)
def test_photos_that_are_nowhere_are_a_mistake_in_typing(source, message):
    with pytest.raises(UserError) as error:
        data_at(source)
    assert str(error.value).startswith(message)
    assert error.value.exit_code == 2
