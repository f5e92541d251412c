import json
import math
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from kerasft.cli.options import default_run_path
from kerasft.errors import UserError
from kerasft.files import discard, reason_of, replacing, write_atomic
from kerasft.metrics import Answers
from kerasft.record import Device, RunRecord
from kerasft.run import (
    Run,
    create_run,
    lock,
    open_run,
    read_answers,
    read_metrics,
    read_record,
    write_answers,
    write_metrics,
    write_record,
)

ROOT = Path(__file__).resolve().parent.parent


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def a_run(path):
    run = create_run(path, resume=False)
    write_record(run, RunRecord("running", {}, Device("tensorflow", "cpu", "", 2), seed=0))
    return run


def test_a_run_knows_the_names_in_it():
    run = Run(Path("runs/flowers"))
    assert run.config_path == Path("runs/flowers/config.toml")
    assert run.record_path == Path("runs/flowers/run.json")
    assert run.classes_path == Path("runs/flowers/classes.txt")
    assert run.splits_path == Path("runs/flowers/splits.csv")
    assert run.metrics_path == Path("runs/flowers/metrics.jsonl")
    assert run.checkpoints == Path("runs/flowers/checkpoints")
    assert run.model_path == Path("runs/flowers/model.keras")


def test_the_default_path_is_the_first_free_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert default_run_path("/photos/flowers") == Path("runs/flowers")
    (tmp_path / "runs" / "flowers").mkdir(parents=True)
    assert default_run_path("/photos/flowers") == Path("runs/flowers-2")
    (tmp_path / "runs" / "flowers-2").mkdir()
    assert default_run_path("/photos/flowers.zip") == Path("runs/flowers-3")
    assert default_run_path("tfds:flowers:small") == Path("runs/flowers-small")


# ── create and open ──


@pytest.mark.parametrize("resume", [False, True])
def test_a_run_starts_in_an_absent_directory(tmp_path, resume):
    path = tmp_path / "runs" / "flowers"
    assert create_run(path, resume=resume) == Run(path)
    assert names_in(path) == []


@pytest.mark.parametrize("resume", [False, True])
def test_a_run_starts_in_an_empty_directory_and_a_lock_file_counts_for_nothing(tmp_path, resume):
    (tmp_path / ".lock").touch()
    assert create_run(tmp_path, resume=resume) == Run(tmp_path)


def test_an_existing_run_is_refused_and_resume_takes_it(tmp_path):
    path = a_run(tmp_path / "flowers").path
    with pytest.raises(UserError) as refused:
        create_run(path, resume=False)
    assert str(refused.value) == (
        f"{path} already holds a run. Choose another directory, or\n"
        "  pass `resume=True` to continue an unfinished one."
    )
    assert refused.value.exit_code == 2
    assert create_run(path, resume=True) == Run(path)


def test_what_is_left_of_a_run_that_ended_before_its_record_can_be_resumed(tmp_path):
    (tmp_path / "splits.csv").touch()
    (tmp_path / "classes.txt").touch()
    with pytest.raises(UserError, match="already holds a run"):
        create_run(tmp_path, resume=False)
    assert create_run(tmp_path, resume=True) == Run(tmp_path)


@pytest.mark.parametrize("left", [".part.splits.csv", ".part.run.json"])
def test_what_is_left_of_a_run_that_ended_in_its_first_files_can_be_resumed(tmp_path, left):
    (tmp_path / ".lock").write_text("")
    (tmp_path / left).write_text("path,lab")
    with pytest.raises(UserError, match="already holds a run"):
        create_run(tmp_path, resume=False)
    with lock(create_run(tmp_path, resume=True)):
        assert names_in(tmp_path) == [".lock"]  # the half of a file is gone


def test_a_run_that_is_locked_holds_no_halves_of_files_and_all_the_others(tmp_path):
    run = a_run(tmp_path / "run")
    (run.path / ".part.model.keras").write_bytes(b"PK")
    (run.path / "notes.txt").write_text("mine")
    with lock(run):
        assert names_in(run.path) == [".lock", "notes.txt", "run.json"]


@pytest.mark.parametrize("resume", [False, True])
def test_a_directory_of_other_things_is_refused_and_left_alone(tmp_path, resume):
    (tmp_path / "thesis.doc").touch()
    with pytest.raises(UserError) as refused:
        create_run(tmp_path, resume=resume)
    assert str(refused.value) == (
        f"{tmp_path} is not empty and is not a run: no run.json in it. Choose another directory."
    )
    assert refused.value.exit_code == 2
    assert names_in(tmp_path) == ["thesis.doc"]


def test_a_file_is_no_place_for_a_run(tmp_path):
    path = tmp_path / "flowers"
    path.touch()
    with pytest.raises(UserError) as refused:
        create_run(path, resume=False)
    assert str(refused.value) == f"{path} is a file. Choose a directory for the run."


def test_a_directory_that_cannot_be_made_is_named_with_the_reason(tmp_path):
    (tmp_path / "file").touch()
    path = tmp_path / "file" / "flowers"
    with pytest.raises(UserError) as refused:
        create_run(path, resume=False)
    assert str(refused.value) == f"{path} can't be made: not a directory."
    assert refused.value.exit_code == 2


def test_a_run_can_be_opened(tmp_path):
    assert open_run(a_run(tmp_path / "flowers").path) == Run(tmp_path / "flowers")


def test_what_is_absent_cannot_be_opened(tmp_path):
    with pytest.raises(UserError) as refused:
        open_run(tmp_path / "flowers")
    assert str(refused.value) == f"{tmp_path / 'flowers'}: no such directory."
    assert refused.value.exit_code == 2


def test_what_is_not_a_run_cannot_be_opened(tmp_path):
    with pytest.raises(UserError) as refused:
        open_run(tmp_path)
    assert str(refused.value) == f"{tmp_path} is not a run: no run.json in it."
    assert refused.value.exit_code == 1


# ── lock ──

HOLD = """
import sys
from pathlib import Path
from kerasft.run import Run, lock
with lock(Run(Path(sys.argv[1]))):
    print("locked", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the lock of the run in tmp_path."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, tmp_path],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "locked\n"
    yield process
    process.kill()
    process.communicate()


def test_a_second_process_is_refused(tmp_path, holder):
    with pytest.raises(UserError) as refused, lock(Run(tmp_path)):
        pass
    assert str(refused.value) == (
        f"another kerasft process is working in {tmp_path}. Wait until it has finished."
    )
    assert refused.value.exit_code == 1


def test_the_lock_of_a_process_that_was_killed_is_free(tmp_path, holder):
    holder.kill()
    holder.wait()
    with lock(Run(tmp_path)):
        pass


def test_the_lock_is_free_after_an_error_inside(tmp_path):
    with pytest.raises(ValueError), lock(Run(tmp_path)):
        raise ValueError
    with lock(Run(tmp_path)):
        pass


def test_a_directory_that_cannot_be_locked_is_named(tmp_path):
    (tmp_path / "file").touch()
    path = tmp_path / "file" / "flowers"
    with pytest.raises(UserError) as refused, lock(Run(path)):
        pass
    assert str(refused.value).startswith(f"{path} can't be written: ")


# ── atomic writes ──


def test_a_file_is_written_and_replaced_and_nothing_is_left_beside_it(tmp_path):
    path = tmp_path / "classes.txt"
    write_atomic(path, "daisy\r\nrosé\n")
    assert path.read_bytes() == b"daisy\r\nros\xc3\xa9\n"
    write_atomic(path, b"\x00\xff")
    assert path.read_bytes() == b"\x00\xff"
    assert names_in(tmp_path) == ["classes.txt"]


def test_what_a_killed_process_left_is_overwritten(tmp_path):
    (tmp_path / ".part.run.json").write_text("much longer than what comes now")
    write_atomic(tmp_path / "run.json", "{}")
    assert (tmp_path / "run.json").read_text() == "{}"
    assert names_in(tmp_path) == ["run.json"]


FULL = """
import resource, signal, sys
from pathlib import Path
from kerasft.errors import UserError
from kerasft.run import write_atomic
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # the write fails instead, as on a full disk
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    write_atomic(Path(sys.argv[1]), b"n" * int(sys.argv[2]))
except UserError as error:
    print(error)
"""


def write_with_1000_bytes_left(path, size):
    done = subprocess.run(
        [sys.executable, "-c", FULL, path, str(size)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


@pytest.mark.skipif(not hasattr(signal, "SIGXFSZ"), reason="needs a limit on the size of files")
def test_a_full_disk_leaves_the_old_file_and_no_part_of_the_new_one(tmp_path):
    path = tmp_path / "model.keras"
    path.write_bytes(b"old")
    message = write_with_1000_bytes_left(path, 1001)
    assert message == f"{path} can't be written: file too large.\n"
    assert path.read_bytes() == b"old"
    assert names_in(tmp_path) == ["model.keras"]


@pytest.mark.skipif(not hasattr(signal, "SIGXFSZ"), reason="needs a limit on the size of files")
def test_what_still_fits_is_written(tmp_path):
    path = tmp_path / "model.keras"
    assert write_with_1000_bytes_left(path, 1000) == ""  # the control
    assert path.read_bytes() == b"n" * 1000


def test_a_directory_that_takes_no_files_is_named_with_the_reason(tmp_path):
    (tmp_path / "file").touch()
    path = tmp_path / "file" / "run.json"
    with pytest.raises(UserError) as refused:
        write_atomic(path, "{}")
    assert str(refused.value) == f"{path} can't be written: not a directory."
    assert names_in(tmp_path) == ["file"]


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a read-only file system")
def test_a_read_only_place_is_named():
    path = Path("/proc/run.json")
    with pytest.raises(UserError, match=r"^/proc/run\.json can't be written: "):
        write_atomic(path, "{}")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_is_named_where_numpy_loses_the_reason():
    with pytest.raises(OSError) as caught, open("/dev/full", "wb", buffering=0) as file:
        np.ones(10_000).tofile(file)
    assert str(caught.value).endswith("written")
    assert reason_of(caught.value) == "no space left on device"


def test_a_directory_in_the_way_stays_and_no_part_is_left(tmp_path):
    (tmp_path / "run.json").mkdir()
    with pytest.raises(UserError, match=r"run\.json can't be written: is a directory\."):
        write_atomic(tmp_path / "run.json", "{}")
    assert names_in(tmp_path) == ["run.json"]


def test_ctrl_c_while_writing_leaves_the_old_file(tmp_path):
    path = tmp_path / "model.keras"
    path.write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt), replacing(path) as part:
        part.write_bytes(b"ne")
        raise KeyboardInterrupt
    assert path.read_bytes() == b"old"
    assert names_in(tmp_path) == ["model.keras"]


def test_a_folder_is_discarded_with_what_a_killed_process_left_of_it(tmp_path):
    for name in ("runs", ".removed.runs"):
        (tmp_path / name / "a").mkdir(parents=True)
    discard(tmp_path / "runs")
    assert names_in(tmp_path) == []
    discard(tmp_path / "runs")  # one that is not there


def test_a_writer_gets_a_name_with_the_same_suffix_in_the_same_directory(tmp_path):
    with replacing(tmp_path / "model.keras") as part:
        part.write_bytes(b"new")
        assert (part.parent, part.suffix) == (tmp_path, ".keras")
        assert not (tmp_path / "model.keras").exists()
    assert (tmp_path / "model.keras").read_bytes() == b"new"


# ── run.json and metrics.jsonl ──


def test_the_record_comes_back_as_it_was_written(tmp_path):
    run = Run(tmp_path)
    machine = Device("jax", "gpu:0", "A card", 4)
    record = RunRecord("finished", {"kerasft": "0.2.0"}, machine, seed=3, test_scored=2)
    write_record(run, record)
    assert read_record(run) == record


def test_a_damaged_record_is_named_with_the_place(tmp_path):
    (tmp_path / "run.json").write_text('{"schema": 1,')
    with pytest.raises(UserError) as refused:
        read_record(Run(tmp_path))
    assert str(refused.value).startswith(f"{tmp_path / 'run.json'} is damaged: line 1, column 1")
    assert refused.value.exit_code == 1


@pytest.mark.parametrize(
    ("contents", "reason"),
    [(b"[1]", "is damaged: no JSON object."), (b"\xff", "is damaged: not UTF-8 text.")],
)
def test_a_record_of_the_wrong_kind_is_damaged(tmp_path, contents, reason):
    (tmp_path / "run.json").write_bytes(contents)
    with pytest.raises(UserError) as refused:
        read_record(Run(tmp_path))
    assert str(refused.value) == f"{tmp_path / 'run.json'} {reason}"


def test_a_record_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(UserError) as refused:
        read_record(Run(tmp_path))
    assert str(refused.value) == (
        f"{tmp_path / 'run.json'} can't be read: no such file or directory."
    )


ROW = {"phase": "head", "epoch": 1, "loss": 0.1 + 0.2, "accuracy": 1, "val_loss": 1e-05}
ROW |= {"val_accuracy": 0.5, "b": 1, "a": "x"}


def test_metrics_are_a_line_each_in_full_precision_with_keys_in_their_order(tmp_path):
    run = Run(tmp_path)
    write_metrics(run, [ROW, {**ROW, "loss": float("nan")}])
    rest = '"accuracy": 1, "val_loss": 1e-05, "val_accuracy": 0.5, "b": 1, "a": "x"}\n'
    assert run.metrics_path.read_text() == (
        '{"phase": "head", "epoch": 1, "loss": 0.30000000000000004, '
        + rest
        + '{"phase": "head", "epoch": 1, "loss": NaN, '
        + rest
    )
    assert read_metrics(run)[0] == ROW
    assert math.isnan(read_metrics(run)[1]["loss"])


def test_a_run_without_metrics_has_none(tmp_path):
    assert read_metrics(Run(tmp_path)) == []


def test_writing_metrics_replaces_those_before(tmp_path):
    run = Run(tmp_path)
    write_metrics(run, [ROW, {**ROW, "epoch": 2}])
    write_metrics(run, [ROW])
    assert read_metrics(run) == [ROW]


def test_a_damaged_line_of_metrics_is_named_by_its_number(tmp_path):
    good = json.dumps(ROW)
    (tmp_path / "metrics.jsonl").write_text(f"{good}\nepoch 2\n")
    with pytest.raises(UserError) as refused:
        read_metrics(Run(tmp_path))
    assert str(refused.value) == (
        f"{tmp_path / 'metrics.jsonl'} is damaged: line 2, column 1: Expecting value."
    )


def test_a_row_of_metrics_without_a_figure_is_named_by_its_number(tmp_path):
    rows = [ROW, {name: value for name, value in ROW.items() if name != "val_loss"}]
    write_metrics(Run(tmp_path), rows)
    with pytest.raises(UserError) as refused:
        read_metrics(Run(tmp_path))
    assert str(refused.value) == (
        f"{tmp_path / 'metrics.jsonl'} is damaged: line 2: val_loss is missing."
    )


def turned(content):
    """Turns round some bytes in the middle."""
    half = len(content) // 2
    middle = bytes(255 - byte for byte in content[half : half + 8])
    return content[:half] + middle + content[half + 8 :]


@pytest.mark.parametrize("damage", [lambda _: b"", lambda c: c[: len(c) // 2], turned])
def test_damaged_answers_are_none(tmp_path, damage):
    path = tmp_path / "answers.npz"
    losses = np.random.default_rng(0).normal(size=(2, 300)).astype("float32")
    write_answers(path, {"head": Answers(losses, losses > 0)})
    np.testing.assert_array_equal(read_answers(path)["head"].losses, losses)
    path.write_bytes(damage(path.read_bytes()))
    assert read_answers(path) == {}
    assert read_answers(tmp_path / "none.npz") == {}
