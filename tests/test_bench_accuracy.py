"""The bench of accuracies: its arms, its file of rows and its tables."""

import json

import bench_accuracy as bench
import pytest


def row(arm, seed, accuracy, **more):
    figures = {"accuracy": accuracy, "loss": 1 - accuracy}
    place = {"data": "a", "backbone": "N", "fraction": 1.0, "seed": seed, "arm": arm}
    place["sets"] = [[], []]
    return {**place, "test": figures, "validation": figures, "seconds": 10.0, **more}


def test_arms_are_known_by_name_or_typed_with_their_settings():
    assert bench.known_arms("guide,defaults") == {"guide": ([], []), "defaults": ([], [])}
    typed = "defaults plain:augment.mixup=0.0:phases.-1.epochs=5,phases.-1.ema=0.9"
    assert bench.known_arms(typed) == {
        "defaults": ([], []),
        "plain": (["augment.mixup=0.0"], ["phases.-1.epochs=5", "phases.-1.ema=0.9"]),
    }
    with pytest.raises(SystemExit, match=r"--arms: unknown nothing\. Known are guide, defaults"):
        bench.known_arms("nothing")


def test_differences_are_paired_by_set_net_and_seed():
    rows = [row("guide", seed, 0.80 + 0.05 * seed) for seed in range(3)]
    rows += [row("defaults", seed, 0.82 + 0.05 * seed) for seed in range(3)]
    rows += [row("defaults", 3, 0.10)]  # without a partner
    table = bench.table(rows, ["guide", "defaults"], "test").splitlines()
    assert table[0] == "| arm | a, N | mean | log loss | to guide, points | pairs | s |"
    assert table[2] == "| guide | 0.850 | 0.850 | 0.150 |  | 3 | 10 |"
    assert table[3].endswith("| +2.0 ± 0.0 | 3 | 10 |")


def test_an_interval_is_that_of_student():
    assert bench.interval([]) == ""
    assert bench.interval([1.5]) == "+1.5"
    # t(0.975, 2) = 4.303, standard deviation 1, three values
    assert bench.interval([0.0, 1.0, 2.0]) == "+1.0 ± 2.5"


def test_rows_that_are_there_are_not_computed_again(tmp_path, monkeypatch):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(row("defaults", 0, 0.9)) + "\n")
    asked = []

    def run_arm(arm, sets, data, backbone, seed, arguments):
        asked.append(seed)
        return {"test": {"accuracy": 0.5, "loss": 1.0}, "seconds": 1.0}

    monkeypatch.setattr(bench, "run_arm", run_arm)
    typed = ["--data", "x/a", "--backbones", "N", "--seeds", "2", "--arms", "defaults"]
    typed += ["--json", str(path), "--work", str(tmp_path / "work")]
    monkeypatch.setattr("sys.argv", ["bench_accuracy.py", *typed])
    monkeypatch.setattr(bench, "table", lambda *_: "")
    bench.main()
    assert asked == [1]
    assert [one["seed"] for one in bench.read_rows(path)] == [0, 1]
