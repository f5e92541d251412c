import gc
import subprocess
import sys

import pytest

from kerasft.errors import UserError
from kerasft.processes import importing, run_fresh


def test_jobs_run_beside_each_other_and_are_told(tmp_path):
    told = []
    jobs = {name: ("zipfile", "-c", str(tmp_path / name), __file__) for name in ("one", "two")}
    run_fresh(jobs, tmp_path, what="packing", progress=told.append)
    assert (tmp_path / "one").is_file() and (tmp_path / "two").is_file()
    assert [(event.stage, event.done, event.total) for event in told] == [
        ("check", 0, 2), ("check", 1, 2), ("check", 2, 2),
    ]  # fmt: skip


def test_a_process_sees_kerasft_and_computes_with_tensorflow_on_the_cpu(tmp_path, monkeypatch):
    (tmp_path / "look.py").write_text(
        "import os, kerasft\n"
        "raise SystemExit(f\"{os.environ['KERAS_BACKEND']} {os.environ['CUDA_VISIBLE_DEVICES']}\")",
        "utf-8",
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    with pytest.raises(UserError) as error:
        run_fresh({"looks": ("look",)}, tmp_path, what="test")
    assert str(error.value) == (
        "The test failed: the process that looks ended with status 1: tensorflow -1"
    )


def test_what_is_imported_is_no_longer_looked_through_for_garbage():
    # In a process of its own: this one's garbage is collected on.
    code = (
        "import gc\nfrom kerasft.processes import importing\n"
        "print(gc.get_freeze_count())\n"
        "with importing():\n"
        "    print(gc.isenabled())\n"
        "    kept = [[number] for number in range(10_000)]\n"
        "print(gc.isenabled(), gc.get_freeze_count() > 10_000)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "0\nFalse\nTrue True\n"


def test_garbage_is_collected_again_after_an_import_that_failed():
    before = gc.get_freeze_count()
    try:
        with pytest.raises(ModuleNotFoundError), importing():
            import there_is_no_such_module  # noqa: F401
        assert gc.isenabled()
    finally:
        if not before:
            gc.unfreeze()
