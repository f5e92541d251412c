import os
import subprocess
import sys

import pytest

from kerasft.files import new_folder


@pytest.mark.skipif(sys.platform == "win32", reason="a process can't be asked for there")
def test_a_new_folder_removes_what_processes_that_have_ended_left_of_it(tmp_path):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    names = [f".clean.part-{ended.pid}", f".clean.part-{os.getppid()}", ".clean.part-of", ".other"]
    for name in names:
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").touch()
    with new_folder(tmp_path / "clean") as part:
        (part / "new").touch()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*names[1:], "clean"])
    assert [path.name for path in (tmp_path / "clean").iterdir()] == ["new"]
