"""The precision of the steps: what "auto" chooses, where that is said, and what stays exact."""

import json
import math
from dataclasses import replace

import pytest
from drawing import draw_photos
from tiny_run import SECOND, both_phases, small, train_head, weights, without_seconds

from kerasft.activations import engines, pace
from kerasft.config.load import append_phase, load_config
from kerasft.data.scan import scan_source
from kerasft.record import Device
from kerasft.run import open_run, read_metrics, read_record
from kerasft.training import plan
from kerasft.training.plan import plan_new
from kerasft.training.reopen import config_of
from kerasft.training.train import plan_run, train_run

CPU = Device("tensorflow", "cpu", "", 2)
pytestmark = pytest.mark.usefixtures("tiny_backbone", "own_cache")


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return draw_photos(tmp_path_factory.mktemp("precision") / "photos")


@pytest.fixture
def measuring(monkeypatch):
    """Lets all steps that train a block be measured; takes the speed that bfloat16 must have."""
    monkeypatch.setattr(engines, "computes_bfloat16", lambda: True)
    monkeypatch.setattr(pace, "PER_THREAD", 1)
    monkeypatch.setattr(pace, "LONG", 0.0)
    return lambda speed: monkeypatch.setattr(pace, "FASTER", speed)


def precisions(phases):
    return [phase.precision for phase in phases]


def in_float32(config):
    phases = (phase.model_copy(update={"precision": "float32"}) for phase in config.phases)
    return config.model_copy(update={"phases": tuple(phases)})


def test_short_phases_are_in_float32_and_never_measured(photos, monkeypatch):
    def measured(*_, **__):
        raise AssertionError("a step was set up to be measured")

    monkeypatch.setattr(engines, "computes_bfloat16", lambda: True)
    monkeypatch.setattr(plan, "steps_on_a_copy", lambda *_, **__: measured)
    config = both_phases(photos)
    assert precisions(config.phases) == ["auto", "auto"]
    settled, _ = plan_new(config, scan_source(config.data, seed=0), CPU)
    assert precisions(settled.config.phases) == ["float32", "float32"]
    monkeypatch.setattr(pace, "PER_THREAD", 1)  # the control
    with pytest.raises(AssertionError, match="a step was set up"):
        plan_new(config, scan_source(config.data, seed=0), CPU)
    config = small(photos, "phases.0.blocks=1", "cache.mode=off")
    on_a_gpu, _ = plan_new(config, scan_source(config.data, seed=0), replace(CPU, device="gpu:0"))
    assert precisions(on_a_gpu.config.phases) == ["float32"]
    config = small(photos, "phases.0.blocks=1", "phases.0.precision=mixed_float16")
    typed, _ = plan_new(config, scan_source(config.data, seed=0), CPU)
    assert precisions(typed.config.phases) == ["mixed_float16"]


@pytest.mark.slow
def test_a_run_that_was_measured_has_the_bits_of_one_that_was_not(photos, measuring, tmp_path):
    learning = {**SECOND, "phases.-1.batch_norm": "train", "phases.-1.ema": 0.9}
    config = append_phase(small(photos, "head.hidden=[8]"), flags=learning)
    typed = train_run(in_float32(config), tmp_path / "typed").to_json()
    assert not (tmp_path / "cache" / "measured.json").exists()
    measuring(math.inf)
    result = train_run(config, tmp_path / "measured").to_json()
    kept = json.loads((tmp_path / "cache" / "measured.json").read_text())
    assert [key.split()[0] for key in kept] == ["steps", "steps"]
    assert without_seconds(result) == without_seconds(typed)
    assert weights(tmp_path / "measured") == weights(tmp_path / "typed")
    for name in ("metrics.jsonl", "config.toml"):
        a, b = ((tmp_path / run / name).read_bytes() for run in ("measured", "typed"))
        assert a == b


class Interrupted(Exception):
    """Stands for Ctrl-C after the first epoch of the second phase."""


def after_an_epoch(event):
    if (event.stage, event.done, event.phase) == ("epoch", 1, "unfreeze"):
        raise Interrupted


def test_the_choice_is_written_down_and_a_resumed_or_repeated_run_keeps_it(
    photos, measuring, tmp_path, monkeypatch
):
    measuring(0.0)
    config, run = both_phases(photos), tmp_path / "run"
    chosen = ["float32", "mixed_bfloat16"]
    assert [phase["precision"] for phase in plan_run(config).to_json()["phases"]] == chosen
    with pytest.raises(Interrupted):
        train_run(config, run, progress=after_an_epoch)
    assert precisions(load_config(run / "config.toml").phases) == chosen

    measuring(math.inf)
    monkeypatch.setenv("KERASFT_CACHE", str(tmp_path / "other"))
    resumed = train_run(config, run, resume=True).to_json()
    assert precisions(load_config(run / "config.toml").phases) == chosen
    record = read_record(open_run(run))
    assert [phase.how.precision for phase in record.phases] == chosen
    assert [phase["precision"] for phase in resumed["phases"]] == chosen
    lines = read_metrics(open_run(run))
    assert [line.get("precision") for line in lines] == [None] * 3 + ["mixed_bfloat16"] * 2
    again = train_run(load_config(run / "config.toml"), tmp_path / "again").to_json()
    assert without_seconds(again) == without_seconds(resumed)
    assert weights(tmp_path / "again") == weights(run)
    assert not (tmp_path / "other" / "measured.json").exists()


@pytest.mark.parametrize(
    "precision", ["mixed_bfloat16", pytest.param("mixed_float16", marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("mode", ["on", "off"])
def test_an_epoch_is_validated_in_float32_whatever_its_steps_compute_in(
    photos, tmp_path, precision, mode
):
    sets = [f"cache.mode={mode}", "cache.dtype=float32", "cache.engine=keras"]
    sets += ["cache.precision=float32", "phases.0.learning_rate=0.01", "phases.0.blocks=1"]
    runs = {"exact": "float32", "rough": precision}
    for name, value in runs.items():
        train_run(small(photos, *sets, f"phases.0.precision={value}"), tmp_path / name)
    exact, rough = (open_run(tmp_path / name) for name in runs)
    # The saved model of the kept epoch, scored in float32 from pixels by another graph.
    assert read_record(rough).phases[0].gap.loss < 1e-6
    first, its = (read_metrics(run)[0]["loss"] for run in (exact, rough))
    assert 1e-5 < abs(first - its) < 0.1  # the control: the steps are not in float32


def test_where_a_run_says_nothing_its_steps_were_in_float32(tmp_path):
    trained = train_head(tmp_path)
    path = trained.run / "config.toml"
    before, table, phase = path.read_text("utf-8").partition("[[phases]]")
    assert phase.count('precision = "float32"\n') == 1
    silent = phase.replace('precision = "float32"\n', "")
    path.write_text(before + table + silent, "utf-8")
    assert precisions(load_config(path).phases) == ["auto"]
    assert precisions(config_of(open_run(trained.run), None).phases) == ["float32"]
