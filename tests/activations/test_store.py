import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from kerasft.activations.store import (
    Key,
    as_stored,
    concatenated,
    filling,
    holds,
    open_store,
    release,
    writing,
)
from kerasft.errors import UserError

ROOT = Path(__file__).resolve().parent.parent.parent
KEY = Key({"backbone": "MobileNetV2", "blocks": 3, "view": "plain"})
DIGEST = "791ffbc7ffe1da16168c4f82dc0c36ad"


def names_in(folder):
    return sorted(path.name for path in folder.iterdir() if path.name != "locks")


def some_rows(count=6, dtype="float16"):
    return np.arange(count * 4, dtype=dtype).reshape(count, 2, 2)


def fill(folder, key=KEY, rows=None, batch=4):
    rows = some_rows() if rows is None else rows
    with writing(folder, key, rows.shape, rows.dtype.name) as writer:
        for start in range(0, len(rows), batch):
            writer.append(rows[start : start + batch])


def start(code, *arguments):
    """Another process, with the names of this file's imports, that runs `code`."""
    names = "import os, signal, sys, time\nfrom pathlib import Path\nimport numpy as np\n"
    names += "from kerasft.errors import UserError\n"
    names += "from kerasft.activations.store import Key, filling, holds, open_store, writing\n"
    names += f"folder, key = Path(sys.argv[1]), Key({dict(KEY.facts)!r})\n"
    return subprocess.Popen(
        [sys.executable, "-c", names + code, *map(str, arguments)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


# ── keys ──


def test_several_stores_are_read_as_one_row_by_row(tmp_path):
    first, second = some_rows(), np.arange(18, dtype="float16").reshape(6, 3) / 4
    other = Key({"backbone": "MobileNet"})
    fill(tmp_path, KEY, first)
    fill(tmp_path, other, second)
    rows = concatenated([open_store(tmp_path, KEY), open_store(tmp_path, other)])
    assert (rows.shape, rows.dtype, len(rows), rows.nbytes) == ((6, 7), "float16", 6, 84)
    assert rows[[4, 1]].tolist() == [
        [16, 17, 18, 19, 3, 3.25, 3.5],
        [4, 5, 6, 7, 0.75, 1, 1.25],
    ]
    assert rows[2:3].tolist() == [[8, 9, 10, 11, 1.5, 1.75, 2]]
    whole = np.asarray(rows, "float32")
    assert (whole.shape, whole.dtype) == ((6, 7), "float32")
    release(rows)
    assert rows[5:].tolist() == [[20, 21, 22, 23, 3.75, 4, 4.25]]


def test_a_single_store_stays_what_it_is():
    rows = some_rows()
    assert concatenated([rows]) is rows


def test_a_digest_is_the_same_today_and_tomorrow():
    assert KEY.digest == DIGEST  # else every cache there is would be lost


def test_the_order_of_the_facts_counts_for_nothing():
    assert Key({"view": "plain", "blocks": 3, "backbone": "MobileNetV2"}).digest == DIGEST


@pytest.mark.parametrize(
    "change",
    [{"backbone": "MobileNet"}, {"blocks": 4}, {"view": 1}, {"view": "1"}, {"seed": None}],
)
def test_each_fact_changes_the_digest(change):
    changed = Key({**KEY.facts, **change}).digest
    assert changed != DIGEST
    assert len(changed) == 32


def test_a_list_inside_a_fact_changes_the_digest_too():
    assert Key({"files": ["a", "b"]}).digest != Key({"files": ["b", "a"]}).digest


# ── one store ──


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_what_was_written_comes_back_in_its_order(tmp_path, dtype):
    fill(tmp_path, rows=some_rows(dtype=dtype))
    rows = open_store(tmp_path, KEY)
    assert rows.dtype == dtype
    np.testing.assert_array_equal(rows[0], [[0, 1], [2, 3]])
    np.testing.assert_array_equal(rows[5], [[20, 21], [22, 23]])
    assert rows.shape == (6, 2, 2)


def test_a_store_is_a_numpy_file_and_a_description_for_people(tmp_path):
    fill(tmp_path)
    assert names_in(tmp_path) == [f"{DIGEST}.json", f"{DIGEST}.npy"]
    plain = np.load(tmp_path / f"{DIGEST}.npy", allow_pickle=False)
    np.testing.assert_array_equal(plain, some_rows())


def test_the_result_is_mapped_and_can_only_be_read(tmp_path):
    fill(tmp_path)
    rows = open_store(tmp_path, KEY)
    assert isinstance(rows, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        rows[0] = 0


def test_a_store_of_no_images_can_be_kept(tmp_path):
    fill(tmp_path, rows=some_rows(0))
    assert open_store(tmp_path, KEY).shape == (0, 2, 2)


@pytest.mark.parametrize("lie", [np.asfortranarray, lambda rows: np.repeat(rows, 2, 0)[::2]])
def test_rows_that_lie_otherwise_in_memory_are_written_in_their_order(tmp_path, lie):
    rows = lie(some_rows())
    assert not rows.flags.c_contiguous
    fill(tmp_path, rows=rows, batch=6)
    np.testing.assert_array_equal(open_store(tmp_path, KEY), some_rows())


def test_numbers_of_numpy_are_a_shape_as_well(tmp_path):
    with writing(tmp_path, KEY, (np.int64(1), np.int64(2)), "float16") as writer:
        writer.append(np.zeros((1, 2), "float16"))
    assert open_store(tmp_path, KEY).shape == (1, 2)


def test_another_key_is_another_store(tmp_path):
    other = Key({**KEY.facts, "view": 1})
    fill(tmp_path)
    assert open_store(tmp_path, other) is None
    fill(tmp_path, other, some_rows(2))
    assert open_store(tmp_path, KEY).shape == (6, 2, 2)
    assert open_store(tmp_path, other).shape == (2, 2, 2)


def test_a_folder_that_is_not_there_is_an_empty_cache_and_looking_makes_nothing(tmp_path):
    assert open_store(tmp_path / "cache", KEY) is None
    assert not holds(tmp_path / "cache", KEY)
    assert not (tmp_path / "cache").exists()


def test_opening_is_use_and_asking_is_not(tmp_path):
    fill(tmp_path)
    path = tmp_path / f"{DIGEST}.npy"
    os.utime(path, (1000, 1000))
    assert holds(tmp_path, KEY)
    assert path.stat().st_mtime == 1000
    open_store(tmp_path, KEY)
    assert path.stat().st_mtime > time.time() - 100


def damage(path, how):
    whole = path.read_bytes()
    damaged = {
        "one byte short": whole[:-1],
        "one byte more": whole + b"\0",
        "cut in the header": whole[:40],
        "empty": b"",
        "not NumPy": b"PK" + whole[2:],
        "no header": whole[:10] + b"(" * 118 + whole[128:],
        "quotes that do not end": whole[:10] + b"'''" + whole[13:],
        "objects": whole.replace(b"<f2", b"|O "),
        "integers": whole.replace(b"<f2", b"<i2"),
    }[how]
    assert damaged != whole
    path.write_bytes(damaged)


@pytest.mark.parametrize(
    "how",
    [
        "one byte short",
        "one byte more",
        "cut in the header",
        "empty",
        "not NumPy",
        "no header",
        "quotes that do not end",
        "objects",
        "integers",
    ],
)
def test_a_damaged_store_is_none_and_is_removed(tmp_path, how):
    fill(tmp_path)
    path = tmp_path / f"{DIGEST}.npy"
    damage(path, how)
    assert not holds(tmp_path, KEY)
    assert path.exists()  # only looked at
    assert open_store(tmp_path, KEY) is None
    assert not path.exists()
    fill(tmp_path)
    assert open_store(tmp_path, KEY) is not None


# ── what a store takes ──


@pytest.mark.parametrize("count", [0, 3, 5])
def test_too_few_rows_are_a_bug_and_leave_nothing(tmp_path, count):
    with (
        pytest.raises(ValueError, match=rf"^{count} rows for \(6, 2, 2\)$"),
        writing(tmp_path, KEY, (6, 2, 2), "float16") as writer,
    ):
        writer.append(some_rows(count))
    assert names_in(tmp_path) == []


def test_rows_too_many_are_a_bug_before_they_are_written(tmp_path):
    with writing(tmp_path, KEY, (6, 2, 2), "float16") as writer:
        writer.append(some_rows(5))
        with pytest.raises(ValueError, match=r"^7 rows for \(6, 2, 2\)$"):
            writer.append(some_rows(2))
        writer.append(some_rows()[5:])
    np.testing.assert_array_equal(open_store(tmp_path, KEY), some_rows())


@pytest.mark.parametrize(
    "rows", [np.zeros((6, 2, 2), "float32"), np.zeros((6, 4), "float16"), np.zeros((6, 2, 3), "f2")]
)
def test_rows_of_another_dtype_or_shape_are_a_bug(tmp_path, rows):
    with (
        pytest.raises(ValueError),
        writing(tmp_path, KEY, (6, 2, 2), "float16") as writer,
    ):
        writer.append(rows)
    assert names_in(tmp_path) == []


@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError, OSError])
def test_an_exception_leaves_nothing_and_stays_what_it_is(tmp_path, error):
    with pytest.raises(error), writing(tmp_path, KEY, (6, 2, 2), "float16") as writer:
        writer.append(some_rows(4))
        raise error
    assert names_in(tmp_path) == []


def test_an_exception_leaves_the_store_that_was_there(tmp_path):
    fill(tmp_path)
    with pytest.raises(KeyboardInterrupt), writing(tmp_path, KEY, (2, 2, 2), "float16"):
        raise KeyboardInterrupt
    assert names_in(tmp_path) == [f"{DIGEST}.json", f"{DIGEST}.npy"]
    assert open_store(tmp_path, KEY).shape == (6, 2, 2)


def test_a_store_appears_only_at_the_end_of_the_block(tmp_path):
    with writing(tmp_path, KEY, (6, 2, 2), "float16") as writer:
        writer.append(some_rows())
        assert not holds(tmp_path, KEY)
        assert names_in(tmp_path) == [f".part.{DIGEST}.npy"]
    assert holds(tmp_path, KEY)


def test_several_stores_are_made_in_one_pass_or_none_of_them(tmp_path):
    keys = [Key({**KEY.facts, "view": view}) for view in (0, 1, 2)]
    for good in (False, True):
        with ExitStack() as stack:
            if not good:
                stack.enter_context(pytest.raises(KeyboardInterrupt))
            stack.enter_context(filling(tmp_path, keys))
            writers = [
                stack.enter_context(writing(tmp_path, key, (6, 2, 2), "float16")) for key in keys
            ]
            for writer in writers:
                writer.append(some_rows())
            if not good:
                raise KeyboardInterrupt
        assert [holds(tmp_path, key) for key in keys] == [good] * 3
        assert len(names_in(tmp_path)) == (6 if good else 0)


def test_what_a_killed_process_left_is_no_store_and_the_next_fill_succeeds(tmp_path):
    killed = start(
        "with filling(folder, [key]), writing(folder, key, (100, 1000), 'float32') as writer:\n"
        "    writer.append(np.ones((50, 1000), 'float32'))\n"
        "    os.kill(os.getpid(), 9)\n",
        tmp_path,
    )
    killed.communicate()
    assert killed.returncode == -9
    assert names_in(tmp_path) == [f".part.{DIGEST}.npy"]  # it got that far
    assert open_store(tmp_path, KEY) is None
    with filling(tmp_path, [KEY]):
        fill(tmp_path)
    np.testing.assert_array_equal(open_store(tmp_path, KEY), some_rows())
    assert names_in(tmp_path) == [f"{DIGEST}.json", f"{DIGEST}.npy"]


# ── numbers that fit ──


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_numbers_of_the_usual_size_fit(dtype):
    rows = np.random.default_rng(0).normal(size=(5, 3, 3, 8)).astype("float32")
    stored = as_stored(rows, dtype)
    assert stored.dtype == dtype
    # Half of the step of float16 between 4 and 8, the largest there are.
    np.testing.assert_allclose(stored, rows, atol=0.002, rtol=0)


def test_float32_is_kept_to_the_last_bit():
    rows = np.array([[1e-40, 0.1, 3e38]], "float32")
    np.testing.assert_array_equal(as_stored(rows, "float32"), rows)


@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_a_number_that_is_not_finite_fits_nowhere(dtype, bad):
    rows = np.ones((3, 2), "float32")
    rows[1, 1] = bad
    assert as_stored(rows, dtype) is None


def test_what_float16_would_make_infinite_does_not_fit_and_is_not_clipped():
    assert as_stored(np.array([[1, 65519]], "float32"), "float16")[0, 1] == 65504  # rounds to it
    assert as_stored(np.array([[1, 65520]], "float32"), "float16") is None
    assert as_stored(np.array([[1, -65520]], "float32"), "float16") is None
    assert as_stored(np.array([[1, 1e30]], "float32"), "float32")[0, 1] == np.float32(1e30)


def test_an_image_of_numbers_too_small_for_float16_does_not_fit():
    rows = np.ones((3, 4), "float32")
    rows[1] = 1.03e-6  # float16 knows 17 * 2**-24 = 1.013e-6 and the next is 1.073e-6: 1.6 % off
    assert as_stored(rows, "float16") is None
    assert as_stored(rows, "float32") is not None


def test_numbers_that_underflow_to_zero_do_not_fit_even_where_their_squares_do_too():
    assert as_stored(np.full((1, 4), 1e-9, "float32"), "float16") is None
    assert as_stored(np.full((1, 4), 1e-40, "float32"), "float16") is None


def test_small_numbers_beside_larger_ones_of_their_image_fit():
    assert as_stored(np.array([[1e-9, 1.0]], "float32"), "float16") is not None


def test_an_image_of_zeros_fits():
    np.testing.assert_array_equal(
        as_stored(np.zeros((2, 3, 3), "float32"), "float16"), np.zeros((2, 3, 3))
    )


@pytest.mark.parametrize(
    ("size", "fitting"), [(1e-5, {False}), (2e-5, {False, True}), (1e-4, {True}), (1.0, {True})]
)
def test_the_limit_is_a_thousandth_of_the_norm_of_each_image(size, fitting):
    rng = np.random.default_rng(0)
    images = [(rng.uniform(0, size, (1, 50)) + size / 3).astype("float32") for _ in range(40)]
    fits = [as_stored(image, "float16") is not None for image in images]
    lost = [
        np.linalg.norm(image.astype("float16").astype("float64") - image) / np.linalg.norm(image)
        for image in images
    ]
    assert fits == [share <= 1e-3 for share in lost]
    assert set(fits) == fitting  # both sides of the limit are looked at


def test_no_image_is_no_reason_against():
    assert as_stored(np.zeros((0, 3), "float32"), "float16").shape == (0, 3)


# ── several processes ──

SLOWLY = """
with filling(folder, [key]):
    print("filling", flush=True)
    sys.stdin.readline()
    with writing(folder, key, (6, 2, 2), "float16") as writer:
        writer.append(np.arange(24, dtype="float16").reshape(6, 2, 2))
"""


def test_a_second_process_waits_for_the_first_and_then_finds_the_store(tmp_path):
    first = start(SLOWLY, tmp_path)
    assert first.stdout.readline() == "filling\n"
    second = start(
        "with filling(folder, [key], waiting=lambda: print('waiting', flush=True)):\n"
        "    print('holds', holds(folder, key), open_store(folder, key)[5, 1, 1])\n",
        tmp_path,
    )
    assert second.stdout.readline() == "waiting\n"  # once: what follows is the whole rest
    assert not holds(tmp_path, KEY)
    first.communicate("go on\n")
    assert second.communicate()[0] == "holds True 23.0\n"
    assert (first.returncode, second.returncode) == (0, 0)


def test_nobody_waits_where_nobody_else_fills(tmp_path):
    waited = []
    with filling(tmp_path, [KEY, KEY], waiting=lambda: waited.append(1)):
        assert not holds(tmp_path, KEY)
    assert waited == []


def test_who_waits_for_a_process_that_is_killed_goes_on(tmp_path):
    first = start(SLOWLY, tmp_path)
    assert first.stdout.readline() == "filling\n"

    def kill():
        first.kill()
        first.communicate()

    with filling(tmp_path, [KEY], waiting=kill):
        assert not holds(tmp_path, KEY)
        fill(tmp_path)
    assert holds(tmp_path, KEY)


def test_locks_are_taken_in_one_order_whatever_the_order_of_the_keys(tmp_path):
    first, last = sorted((Key({"view": view}) for view in (1, 2)), key=lambda key: key.digest)
    with filling(tmp_path, [first]):
        other = start(
            "keys = [Key({'view': int(view)}) for view in sys.argv[2:]]\n"
            "with filling(folder, keys, waiting=lambda: print('waiting', flush=True)):\n"
            "    pass\n",
            tmp_path,
            last.facts["view"],
            first.facts["view"],
        )
        assert other.stdout.readline() == "waiting\n"
        waited = []
        with filling(tmp_path, [last], waiting=lambda: waited.append(other.kill())):
            pass
        assert waited == []  # it waits for the first before it takes the last
    other.communicate(timeout=60)
    assert other.returncode == 0


def test_filling_makes_the_folder(tmp_path):
    with filling(tmp_path / "not" / "yet", [KEY]):
        fill(tmp_path / "not" / "yet")
    assert holds(tmp_path / "not" / "yet", KEY)


# ── a disk that is full, a folder that cannot be used ──

FULL = """
import resource
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # the write fails instead, as on a full disk
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]),) * 2)
batch = np.ones((int(sys.argv[3]), 1000), "float32")
try:
    with filling(folder, [key]), writing(folder, key, (100, 1000), "float32") as writer:
        for _ in range(0, 100, len(batch)):
            writer.append(batch)
except UserError as error:
    print(error)
"""
needs_limit = pytest.mark.skipif(
    not hasattr(signal, "SIGXFSZ"), reason="needs a limit on the size of files"
)


@needs_limit
@pytest.mark.parametrize("limit", [0, 100, 128, 5000, 399_999, 400_127])
@pytest.mark.parametrize("batch", [1, 25])
def test_a_full_disk_is_said_with_what_to_do_and_leaves_nothing(tmp_path, limit, batch):
    said, _ = start(FULL, tmp_path, limit, batch).communicate()
    assert said == (
        f"{tmp_path / DIGEST}.npy can't be written: file too large. 400.0 kB are needed.\n"
        "  Free some space, empty the cache (`kerasft cache clear`), or set KERASFT_CACHE\n"
        "  to a folder on another disk.\n"
    )
    assert names_in(tmp_path) == []


@needs_limit
def test_what_still_fits_the_disk_is_written(tmp_path):
    said, _ = start(FULL, tmp_path, 400_128, 25).communicate()  # the control: 128 of header
    assert said == ""
    assert open_store(tmp_path, KEY).shape == (100, 1000)


@pytest.mark.parametrize("what", ["filling", "writing"])
def test_a_folder_that_cannot_be_made_is_named_with_the_variable(tmp_path, what):
    (tmp_path / "file").touch()
    folder = tmp_path / "file" / "cache"
    with pytest.raises(UserError) as refused:
        if what == "filling":
            with filling(folder, [KEY]):
                pass
        else:
            fill(folder)
    assert str(refused.value) == (
        f"{folder} can't be used: not a directory. Set KERASFT_CACHE to another folder, or "
        "train without a store."
    )
    assert refused.value.exit_code == 1
    assert open_store(folder, KEY) is None


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a read-only file system")
def test_a_folder_that_takes_no_files_is_named_with_the_variable():
    with pytest.raises(UserError, match=r"^/proc/self can't be used: .*KERASFT_CACHE"):
        fill(Path("/proc/self"))


def test_what_was_read_of_a_store_is_given_back_and_can_be_read_again(tmp_path):
    code = (
        "import sys, numpy as np\n"
        "from pathlib import Path\n"
        "from kerasft.activations.store import Key, filling, open_store, release, writing\n"
        "folder, key = Path(sys.argv[1]), Key({'a': 1})\n"
        "with filling(folder, [key]), writing(folder, key, (64, 1 << 18), 'float32') as writer:\n"
        "    for row in range(64):\n"
        "        writer.append(np.full((1, 1 << 18), row, 'float32'))\n"
        "def resident():\n"
        "    return int(Path('/proc/self/statm').read_text().split()[1]) * 4096 >> 20\n"
        "rows = open_store(folder, key)\n"
        "before = resident()\n"
        "assert float(rows.max()) == 63\n"
        "read = resident()\n"
        "release(rows)\n"
        "print(read - before, resident() - before, float(rows[63, 5]))"
    )
    if not Path("/proc/self/statm").is_file():
        pytest.skip("needs Linux to see the memory of a process")
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=True
    )
    read, released, value = done.stdout.split()
    assert (int(read) > 50, int(released) < 10, value) == (True, True, "63.0")  # of 64 MiB


def test_an_array_in_memory_has_nothing_to_give_back():
    release(np.zeros(3))
