"""The bench of both phases: what it computes from the programs' figures, and what it refuses."""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import bench_two_phase as bench
import numpy as np
import pytest
from import_graph import parse_modules, reached_at_the_top

TYPED = {"data": Path("photos"), "backbone": "MobileNetV2", "epochs": 3, "unfreeze_epochs": 2}
PHASES = [
    {
        "name": "head",
        "epochs": 2,
        "seconds": 15.0,
        "parts": [
            {"name": "prefix pass", "seconds": 4.0, "predicted_seconds": 5.0},
            {"name": "epochs", "seconds": 6.0, "predicted_seconds": None},
            {"name": "scoring", "seconds": 3.0, "predicted_seconds": None},
        ],
    },
    {
        "name": "unfreeze",
        "epochs": 1,
        "seconds": 8.0,
        "parts": [{"name": "epochs", "seconds": 8.0, "predicted_seconds": None}],
    },
]
LINES = [
    {"phase": "head", "epoch": 1, "val_accuracy": 0.5},
    {"phase": "head", "epoch": 2, "val_accuracy": 0.7},
    {"phase": "unfreeze", "epoch": 1, "val_accuracy": 0.9},
]


def typed(**changes):
    return argparse.Namespace(**{**TYPED, "views": 1, **changes})


def row(program, *, seed=0, head=10.0, unfreeze=30.0, **more):
    return {
        "program": program,
        "seed": seed,
        "split": "a1",
        "train_images": 64,
        "batch_size": 32,
        "image_size": 224,
        "head_steps": 20,
        "unfreeze_steps": 10,
        "head_seconds": head,
        "unfreeze_seconds": unfreeze,
        "seconds": head + unfreeze,
        **more,
    }


def test_a_program_of_kerasft_comes_first_whatever_was_typed():
    assert bench.in_turn(["warm", "guide", "cold"]) == ["cold", "guide", "warm"]
    assert bench.in_turn(["guide", "live", "bound"]) == ["live", "guide", "bound"]


@pytest.mark.parametrize(
    ("names", "why"),
    [
        (["cold", "gide"], "unknown gide"),
        (["guide", "bound"], "has to make the split"),
        (["guide", "live", "warm"], "warm needs cold"),
        (["cold", "warm-bfloat16"], "warm-bfloat16 needs cold-bfloat16"),
    ],
)
def test_arms_that_cannot_run_are_refused(names, why):
    with pytest.raises(ValueError, match=why):
        bench.in_turn(names)


def test_the_commands_say_seed_epochs_and_that_nothing_stops_early():
    train, unfreeze = bench.kerasft_commands("cold", Path("runs/a"), 7, typed(views=4))
    assert " ".join(train[3:]) == (
        "train --data photos --run runs/a --seed 7 --backbone MobileNetV2 --json --epochs 3 "
        "--set phases.0.patience=0 --set augment.views=4 --set cache.precision=float32"
    )
    assert " ".join(unfreeze[3:]) == (
        "unfreeze-and-continue runs/a --json --epochs 2 --set phases.-1.patience=0 "
        "--set phases.-1.precision=float32"
    )


def test_bfloat16_is_asked_of_the_pass_and_of_the_second_phase():
    train, unfreeze = bench.settings("warm-bfloat16", typed())
    assert train == ["phases.0.patience=0", "augment.views=1", "cache.precision=bfloat16"]
    assert unfreeze == ["phases.-1.patience=0", "phases.-1.precision=mixed_bfloat16"]


def test_live_has_no_store_and_a_new_view_in_every_epoch():
    train, _ = bench.settings("live", typed(views=4))
    assert train == ["phases.0.patience=0", "augment.views=0", "cache.mode=off"]


def test_default_is_told_neither_epochs_nor_settings():
    train, unfreeze = bench.kerasft_commands("default", Path("r"), 0, typed())
    assert "--set" not in train + unfreeze
    assert "--epochs" not in train + unfreeze


def test_a_phase_is_compared_by_pass_and_epochs_and_all_else_comes_after():
    assert bench.phase_seconds(PHASES[0]) == (4.0, 6.0, 5.0)
    assert bench.phase_seconds(PHASES[1]) == (0, 8.0, 0.0)


def test_accuracy_over_time_goes_through_both_phases():
    assert bench.curve(PHASES, LINES) == [[7.0, 0.5], [10.0, 0.7], [18.0, 0.9]]


def test_an_accuracy_is_reached_at_the_first_epoch_that_has_it_or_never():
    points = [[7.0, 0.5], [10.0, 0.6], [18.0, 0.55]]
    assert bench.seconds_to(points, 0.52) == 10.0
    assert bench.seconds_to(points, float(np.float32(0.6))) == 10.0  # 0.60000002
    assert bench.seconds_to(points, 0.61) is None


def test_steps_and_split_are_taken_from_the_files_of_a_run(tmp_path):
    lines = ["path,label,split"] + [f"a/{i}.jpg,0,train" for i in range(33)]
    (tmp_path / "splits.csv").write_text("\n".join([*lines, "a/x.jpg,0,test"]) + "\n")
    phase = "[[phases]]\nbatch_size = 32\n"
    (tmp_path / "config.toml").write_text(f"[model]\nimage_size = 96\n{phase}{phase}")
    work = bench.work_of(tmp_path, PHASES)
    assert len(work.pop("split")) == 16
    assert work == {
        "train_images": 33,
        "batch_size": 32,
        "image_size": 96,
        "head_steps": 4,  # 2 epochs of a whole batch and one image
        "unfreeze_steps": 2,
    }


def test_programs_that_did_the_same_work_are_compared():
    bound = row("bound")
    del bound["split"]  # it has no images
    bench.refuse_unequal([row("cold"), row("guide"), bound])


def test_a_difference_in_steps_is_refused():
    rows = [row("cold"), row("guide") | {"unfreeze_steps": 9}]
    with pytest.raises(SystemExit, match="differ in unfreeze_steps: cold 10, guide 9"):
        bench.refuse_unequal(rows)


def test_a_difference_in_the_split_is_refused():
    with pytest.raises(SystemExit, match="differ in split: cold a1, warm b2"):
        bench.refuse_unequal([row("cold"), row("warm") | {"split": "b2"}])


def test_only_the_steps_of_default_may_be_its_own():
    bench.refuse_unequal([row("cold"), row("default") | {"head_steps": 40}])
    with pytest.raises(SystemExit, match="train_images"):
        bench.refuse_unequal([row("cold"), row("default") | {"train_images": 65}])


def test_a_row_gets_sums_and_images_per_second():
    after = {"head_after_seconds": 1.0, "unfreeze_after_seconds": 2.0}
    got = bench.with_rates(row("cold", head=4.0, unfreeze=8.0, **after))
    assert (got["seconds"], got["after_seconds"]) == (12.0, 3.0)
    # 20 steps are 10 epochs of 64 images in 4 s, 10 steps 5 epochs in 8 s.
    assert (got["head_images_per_second"], got["unfreeze_images_per_second"]) == (160.0, 40.0)


def test_ratios_are_the_references_mean_seconds_over_a_programs_own():
    rows = [
        row("guide", seed=0, head=10.0, unfreeze=30.0, whole_seconds=50.0),
        row("cold", seed=0, head=4.0, unfreeze=6.0, whole_seconds=40.0),
        row("guide", seed=1, head=20.0, unfreeze=30.0, whole_seconds=70.0),
        row("cold", seed=1, head=2.0, unfreeze=6.0, whole_seconds=20.0),
    ]
    guide, cold = bench.summary(rows, "guide")
    assert (cold["program"], cold["seeds"], cold["head_seconds"]) == ("cold", 2, 3.0)
    assert (cold["head_ratio"], cold["unfreeze_ratio"]) == (5.0, 5.0)
    assert (cold["ratio"], cold["whole_ratio"]) == (5.0, 2.0)
    assert guide["ratio"] == 1.0


def test_without_a_reference_there_are_no_ratios():
    (cold,) = bench.summary([row("cold")], "")
    assert "ratio" not in cold


def test_the_table_has_a_line_per_program_and_a_dash_for_what_it_lacks():
    means = bench.summary([row("guide", peak_mb=2048.4), row("bound", head=2.0)], "guide")
    head, guide, bound = (" ".join(line.split()) for line in bench.table(means).splitlines())
    assert head.startswith("program head s unfreeze s both s after s whole s")
    assert guide == "guide 10.0 30.0 40.0 - - - - 2048 - - - 1.00 1.00 1.00 -"
    assert bound == "bound 2.0 30.0 32.0 - - - - - - - - 5.00 1.00 1.25 -"


def test_the_time_to_the_references_accuracy_leaves_out_seeds_that_never_have_it():
    rows = [
        row("guide", seed=0, validation_accuracy=0.7),
        row("guide", seed=1, validation_accuracy=0.95),
        row("default", seed=0, curve=[[8.0, 0.6], [10.0, 0.7]]),
        row("default", seed=1, curve=[[8.0, 0.6], [10.0, 0.9]]),
    ]
    found = bench.times_to_accuracy(rows, "default", "guide")
    assert found is not None
    assert (found["seconds"], found["ratio"]) == ([10.0, None], 4.0)
    assert bench.reached_text(found) == (
        "default: as good on validation as guide is in the end in 1 of 2 seeds, after 10.0 s, "
        "4.00 times sooner"
    )


def test_a_program_that_is_never_as_good_is_said_to_be_so():
    rows = [row("guide", validation_accuracy=0.9), row("cold", curve=[[8.0, 0.6]])]
    found = bench.times_to_accuracy(rows, "cold", "guide")
    assert found is not None and found["ratio"] is None
    assert bench.reached_text(found).endswith("in none of 1 seeds")


def test_a_command_gives_its_last_line_its_seconds_and_its_peak_memory():
    code = "x = bytearray(200_000_000); print('other'); print('{\"a\": 1}')"
    result, process = bench.command([sys.executable, "-c", code], {})
    assert result == {"a": 1}
    assert 0 < process["whole_seconds"] < 60
    assert process["peak_mb"] > 200


def test_a_command_that_fails_ends_the_bench_with_what_it_said():
    with pytest.raises(SystemExit, match="no such photos"):
        bench.command([sys.executable, "-c", "import sys; sys.exit('no such photos')"], {})


@pytest.mark.parametrize(
    "module", ["backbones.table", "models.build", "heads.trained", "models.cut", "models.live"]
)
def test_decoded_images_are_measured_where_only_keras_and_its_own_packages_are(module):
    others = {"tensorflow", "click", "filelock", "pydantic", "rich", "sklearn", "tomli_w"}
    assert not reached_at_the_top(module, parse_modules()) & others


@pytest.mark.slow
def test_decoded_images_give_images_per_second_in_both_precisions(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), dtype=np.uint8)
    np.save(tmp_path / "images.npy", images)
    np.save(tmp_path / "labels.npy", np.arange(8) % 2)
    script = Path(bench.__file__)
    flags = ["--data", str(tmp_path), "--epochs", "1", "--unfreeze-epochs", "1"]
    flags += ["--backbone", "MobileNet:alpha=0.25", "--json", str(tmp_path / "out.json")]
    done = subprocess.run([sys.executable, script, *flags], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "out.json").read_text("utf-8"))
    assert [row["precision"] for row in report["rows"]] == ["float32", "bfloat16"]
    keys = ("head_pass", "head", "unfreeze_pass", "unfreeze")
    rates = [row[f"{key}_images_per_second"] for row in report["rows"] for key in keys]
    assert all(rate > 0 for rate in rates) and len(rates) == 8
    assert report["machine"]["cores"] >= 1
