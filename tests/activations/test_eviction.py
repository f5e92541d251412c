import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from kerasft.activations.eviction import (
    clear,
    lack_of_room,
    limit_of,
    list_stores,
    make_room,
    report,
    set_limit,
    tidy,
)
from kerasft.activations.store import Key, filling, holds, open_store, writing
from kerasft.cache import RESERVE, cache_folder, remember, remembered
from kerasft.errors import UserError

ROOT = Path(__file__).resolve().parent.parent.parent
A, B, C = (Key({"backbone": "MobileNetV2", "view": view}) for view in (1, 2, 3))
SIZE = 128 + 1000 * 4  # bytes of a store below: NumPy's header and the numbers


def fill(folder, key, used=None):
    with writing(folder, key, (10, 100), "float32") as writer:
        writer.append(np.ones((10, 100), "float32"))
    if used is not None:
        os.utime(folder / f"{key.digest}.npy", (used, used))


@pytest.fixture
def three(tmp_path):
    """A cache of A, B and C; B was used last, C first."""
    folder = tmp_path / "cache"
    fill(folder, A, used=2000)
    fill(folder, B, used=3000)
    fill(folder, C, used=1000)
    return folder


def held(folder):
    return [name for name, key in (("A", A), ("B", B), ("C", C)) if holds(folder, key)]


@pytest.fixture
def filler(three):
    """Another process that is filling a store D, and holds the lock of C too."""
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "import numpy as np\n"
        "from kerasft.activations.store import Key, filling, writing\n"
        "folder, facts = Path(sys.argv[1]), {'backbone': 'MobileNetV2'}\n"
        "c, d = (Key({**facts, 'view': view}) for view in (3, 4))\n"
        "with filling(folder, [c, d]), writing(folder, d, (1, 2), 'float32') as writer:\n"
        "    print('filling', flush=True)\n"
        "    sys.stdin.readline()\n"
        "    writer.append(np.ones((1, 2), 'float32'))\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(three)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "filling\n"
    yield process
    process.kill()
    process.communicate()


# ── where it is, what it holds ──


def test_the_variable_names_the_folder_and_nothing_is_made(tmp_path, monkeypatch):
    monkeypatch.setenv("KERASFT_CACHE", str(tmp_path / "cache"))
    assert cache_folder() == tmp_path / "cache"
    assert not (tmp_path / "cache").exists()


def test_a_relative_folder_and_a_home_are_understood(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KERASFT_CACHE", "here")
    assert cache_folder() == tmp_path / "here"
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("KERASFT_CACHE", "~/there")
    assert cache_folder() == tmp_path / "there"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="other systems, other folders")
@pytest.mark.parametrize("unset", [True, False])
def test_without_the_variable_it_is_the_cache_folder_of_the_user(monkeypatch, unset):
    monkeypatch.setenv("KERASFT_CACHE", "")
    if unset:
        monkeypatch.delenv("KERASFT_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/home/ada/.cache")
    assert cache_folder() == Path("/home/ada/.cache/kerasft")


def test_stores_are_listed_with_the_last_used_first(three):
    stores = list_stores(three)
    assert [store.facts["view"] for store in stores] == [2, 1, 3]
    first = stores[0]
    assert first.facts == {"backbone": "MobileNetV2", "view": 2}
    assert (first.digest, first.bytes, first.used) == (B.digest, SIZE, 3000)
    assert (first.shape, first.dtype) == ((10, 100), "float32")
    assert abs(first.made - (three / f"{B.digest}.json").stat().st_mtime) < 60


def test_opening_a_store_puts_it_first(three):
    open_store(three, C)
    assert [store.facts["view"] for store in list_stores(three)] == [3, 2, 1]


def test_a_folder_that_is_not_there_is_an_empty_cache(tmp_path):
    folder = tmp_path / "cache"
    assert list_stores(folder) == []
    assert clear(folder) == (0, 0)
    assert limit_of(folder) == 20_000_000_000
    assert report(folder).tensors == ()
    assert not folder.exists()


def test_a_store_whose_description_is_lost_is_listed_and_found(three):
    (three / f"{A.digest}.json").unlink()
    (three / f"{B.digest}.json").write_text("{")
    assert [(store.facts, store.made) for store in list_stores(three)[:2]] == [
        ({}, 3000),
        ({}, 2000),
    ]
    assert held(three) == ["A", "B", "C"]


def test_a_damaged_store_is_listed_as_such_and_left_where_it_is(three):
    path = three / f"{A.digest}.npy"
    path.write_bytes(path.read_bytes()[:-1])
    store = next(store for store in list_stores(three) if store.digest == A.digest)
    assert (store.shape, store.dtype, store.bytes) == ((), "", SIZE - 1)
    assert path.exists()


def test_the_report_is_json_with_the_sum(three):
    result = json.loads(json.dumps(report(three).to_json()))
    assert (result["bytes"], result["limit"]) == (3 * SIZE, 20_000_000_000)
    assert result["folder"] == str(three)
    assert [one["facts"]["view"] for one in result["tensors"]] == [2, 1, 3]
    first = result["tensors"][0]
    assert first["facts"] == {"backbone": "MobileNetV2", "view": 2}
    assert (first["stores"], first["bytes"], first["dtype"]) == (1, SIZE, "float32")


# ── room ──


def test_room_is_made_by_removing_what_was_used_least_recently(three):
    set_limit(three, 4 * SIZE)
    make_room(three, SIZE, keep=[])
    assert held(three) == ["A", "B", "C"]  # there was room
    make_room(three, SIZE + 1, keep=[])
    assert held(three) == ["A", "B"]
    make_room(three, 3 * SIZE, keep=[])
    assert held(three) == ["B"]


def test_what_is_to_be_kept_is_never_removed(three):
    set_limit(three, 3 * SIZE)
    make_room(three, SIZE, keep=[C.digest])
    assert held(three) == ["B", "C"]
    make_room(three, 2 * SIZE, keep=[C.digest])
    assert held(three) == ["C"]


def test_a_measurement_is_kept_beside_the_stores_and_a_damaged_one_is_made_again(tmp_path):
    folder = tmp_path / "cache"
    names = ("speed", "difference")
    assert remembered(folder, "MobileNetV2 224", names) is None
    remember(folder, "MobileNetV2 224", {"speed": 1.5, "difference": 0.01})
    remember(folder, "ResNet50 224", {"speed": 2.0, "difference": 0.02})
    assert remembered(folder, "MobileNetV2 224", names) == {"speed": 1.5, "difference": 0.01}
    (folder / "programs").mkdir()
    (folder / "programs" / "jit_run-cache").write_text("")
    clear(folder)
    assert not (folder / "programs").exists()
    assert remembered(folder, "ResNet50 224", names) == {"speed": 2.0, "difference": 0.02}
    assert remembered(folder, "ResNet50 224", ("speed", "size")) is None
    (folder / "measured.json").write_text("{")
    assert remembered(folder, "ResNet50 224", names) is None


def test_what_a_killed_pass_left_counts_as_room(tmp_path):
    set_limit(tmp_path, 10**18)
    needed = shutil.disk_usage(tmp_path).free - RESERVE + 3 * 10**8  # others use the disk too
    assert "must stay free" in lack_of_room(tmp_path, needed)
    with (tmp_path / f".part.{'0' * 32}.npy").open("wb") as left:
        left.truncate(10**9)  # sparse: it takes no room here, and is counted by its size
    assert lack_of_room(tmp_path, needed) is None


def test_what_cannot_fit_removes_nothing_and_says_why(three):
    set_limit(three, 3 * SIZE)
    with pytest.raises(UserError) as refused:
        make_room(three, 2 * SIZE, keep=[B.digest, C.digest])
    assert str(refused.value) == (
        "The activations cannot be stored: 16.5 kB are needed, but the cache's limit is 12.4 kB "
        "(`kerasft cache limit`). Make room with `kerasft cache clear`."
    )
    assert refused.value.exit_code == 1
    assert held(three) == ["A", "B", "C"]


def test_a_store_that_somebody_is_filling_is_not_removed_for_room(three, filler):
    set_limit(three, 3 * SIZE)
    make_room(three, SIZE, keep=[])
    assert held(three) == ["B", "C"]  # A goes, though C was used before it
    with pytest.raises(UserError, match="the cache's limit is"):
        make_room(three, 3 * SIZE, keep=[])
    assert held(three) == ["C"]


def test_what_this_process_is_filling_is_not_removed_either(three):
    set_limit(three, 3 * SIZE)
    with filling(three, [C]):
        make_room(three, SIZE, keep=[])
    assert held(three) == ["B", "C"]


def test_lack_of_room_counts_all_that_could_go(three):
    set_limit(three, 3 * SIZE)
    assert lack_of_room(three, 3 * SIZE) is None
    assert lack_of_room(three, 3 * SIZE + 100) == (
        "12.5 kB are needed, but the cache's limit is 12.4 kB (`kerasft cache limit`)"
    )
    assert lack_of_room(three, 2 * SIZE, keep=[A.digest]) is None
    assert lack_of_room(three, 2 * SIZE, keep=[A.digest, B.digest]) == (
        "16.5 kB are needed, but the cache's limit is 12.4 kB (`kerasft cache limit`)"
    )
    assert held(three) == ["A", "B", "C"]


def test_nothing_needs_no_room(three):
    set_limit(three, 3 * SIZE)
    (three / "settings.json").write_text('{"limit": 1}')
    assert lack_of_room(three, 0, keep=[A.digest]) is None
    make_room(three, 0, keep=[])
    assert held(three) == ["A", "B", "C"]


def test_a_disk_that_is_too_small_is_said_with_its_folder(tmp_path):
    folder = tmp_path / "not" / "yet"
    set_limit(tmp_path, 10**18)
    shutil.copytree(tmp_path, folder)
    lack = lack_of_room(folder, 10**17)
    assert lack.startswith("100000.0 TB are needed and 1.0 GB must stay free, ")
    assert lack.endswith(f" are free on the disk of {folder}")
    with pytest.raises(UserError, match=r"The activations cannot be stored: 100000\.0 TB"):
        make_room(folder, 10**17, keep=[])


def test_a_gigabyte_of_the_disk_stays_free(tmp_path):
    set_limit(tmp_path, 10**18)
    free = shutil.disk_usage(tmp_path).free
    # Other programs write to the disk meanwhile: hence a margin of 0.5 GB on both sides.
    assert lack_of_room(tmp_path, free - 1_500_000_000) is None
    assert lack_of_room(tmp_path, free - 500_000_000) is not None


@pytest.mark.skipif(os.name == "nt", reason="needs a file that is larger than what it takes up")
def test_what_could_go_counts_as_free_on_the_disk_until_it_went_and_nothing_was_freed(tmp_path):
    set_limit(tmp_path, 10**18)
    fill(tmp_path, A)
    path = tmp_path / f"{A.digest}.npy"
    header = {"descr": "<f4", "fortran_order": False, "shape": (10, 100 * 10**9)}
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        file.truncate(128 + 4 * 10**12)  # 4 TB of nothing
    needed = shutil.disk_usage(tmp_path).free + 2 * 10**12
    assert lack_of_room(tmp_path, needed) is None
    assert " must stay free, " in lack_of_room(tmp_path, needed, keep=[A.digest])
    with pytest.raises(UserError, match=" are free on the disk of "):
        make_room(tmp_path, needed, keep=[])
    assert not path.exists()


# ── the limit ──


def test_the_limit_is_kept_in_the_cache_and_what_is_over_it_goes(three):
    assert limit_of(three) == 20_000_000_000
    assert set_limit(three, 2 * SIZE) == (1, SIZE)
    assert limit_of(three) == 2 * SIZE
    assert held(three) == ["A", "B"]
    assert set_limit(three, 0) == (2, 2 * SIZE)
    assert held(three) == []
    assert set_limit(three, 10**12) == (0, 0)


def test_a_limit_can_be_set_before_there_is_a_cache(tmp_path):
    assert set_limit(tmp_path / "cache", 5) == (0, 0)
    assert limit_of(tmp_path / "cache") == 5


@pytest.mark.parametrize(
    "text",
    ["{", "[]", "{}", '{"limit": "5"}', '{"limit": -1}', '{"limit": true}', '{"limit": 1.5}'],
)
def test_a_damaged_limit_is_an_error_that_setting_it_repairs(tmp_path, text):
    (tmp_path / "settings.json").write_text(text)
    with pytest.raises(UserError) as refused:
        limit_of(tmp_path)
    assert str(refused.value) == (
        f"{tmp_path / 'settings.json'} is damaged. `kerasft cache limit 20GB` replaces it."
    )
    set_limit(tmp_path, 7)
    assert limit_of(tmp_path) == 7


def test_a_folder_that_cannot_be_made_is_named_with_the_variable(tmp_path):
    (tmp_path / "file").touch()
    folder = tmp_path / "file" / "cache"
    with pytest.raises(UserError) as refused:
        set_limit(folder, 5)
    assert str(refused.value) == (
        f"{folder} can't be used: not a directory. Set KERASFT_CACHE to another folder, or "
        "train without a store."
    )
    assert list_stores(folder) == []


# ── clear ──


def test_clear_leaves_nothing_but_the_limit(three):
    set_limit(three, 10**9)
    with filling(three, [A]):
        pass
    assert clear(three) == (3, 3 * SIZE)
    assert sorted(path.name for path in three.rglob("*")) == ["locks", "settings.json"]
    assert limit_of(three) == 10**9


def test_clear_removes_what_killed_passes_left(tmp_path):
    (tmp_path / f".part.{A.digest}.npy").write_bytes(b"1234567")
    (tmp_path / f".part.{B.digest}.json").write_text("{")
    (tmp_path / f"{C.digest}.json").write_text("{}")
    assert clear(tmp_path) == (0, 7)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["locks"]


def test_room_is_made_of_what_killed_passes_left_before_any_store(three):
    part = three / f".part.{Key({'view': 9}).digest}.npy"
    part.write_bytes(b"1234567")
    set_limit(three, 3 * SIZE)
    assert part.exists()  # it was not in the way
    make_room(three, SIZE, keep=[])
    assert not part.exists()


def test_clear_leaves_alone_what_another_process_is_filling(three, filler):
    assert clear(three) == (2, 2 * SIZE)
    assert held(three) == ["C"]
    filler.communicate("go on\n")
    assert filler.returncode == 0
    assert open_store(three, Key({"backbone": "MobileNetV2", "view": 4})).shape == (1, 2)
    assert clear(three) == (2, SIZE + 128 + 8)


def test_clear_and_eviction_touch_no_file_of_another_name(three):
    for name in ("thesis.npy", "notes.json", f"{A.digest[:-1]}.npy", f"x{A.digest}.npy"):
        (three / name).write_text("mine")
    clear(three)
    assert sorted(path.name for path in three.iterdir()) == sorted(
        ["locks", "notes.json", "thesis.npy", f"{A.digest[:-1]}.npy", f"x{A.digest}.npy"]
    )


@pytest.mark.skipif(os.name == "nt", reason="Windows keeps what is mapped")
def test_who_has_a_store_open_can_read_on_after_it_is_removed(three):
    rows = open_store(three, A)
    clear(three)
    assert rows.sum() == 1000


def test_all_stores_of_a_net_at_a_cut_are_summed_up(tmp_path):
    facts = {"backbone": "VGG16", "blocks": 1}
    photos = [f"{number:032x}" for number in range(15)]
    plain = [tuple((photo, 0) for photo in photos[i : i + 10]) for i in (0, 5)]
    keys = [Key(facts, rows) for rows in plain]
    keys.append(Key({**facts, "augment": [True]}, tuple((photo, 1) for photo in photos[:10])))
    for number, key in enumerate(keys):
        fill(tmp_path, key, used=1000 + number)
    (one,) = report(tmp_path).tensors
    assert (one.photos, one.views, one.stores, one.bytes) == (15, 2, 3, 3 * SIZE)
    assert (one.facts, one.used, one.dtype) == (facts, 1002, "float32")


def test_room_is_made_of_what_this_process_holds_if_it_says_so(three):
    set_limit(three, 3 * SIZE)
    with filling(three, [C]):  # used least recently
        make_room(three, SIZE, keep=[], held={C.digest[:16]})
    assert held(three) == ["A", "B"]


def test_a_cache_whose_locks_cannot_be_taken_can_be_planned_with(three, monkeypatch):
    (three / f".part.{'0' * 32}.npy").write_bytes(b"half")  # a killed process left it

    def denied(*args, **more):
        raise UserError("permission denied")

    monkeypatch.setattr("kerasft.activations.eviction.hold", denied)
    assert lack_of_room(three, SIZE) is None


def test_tidying_removes_what_killed_passes_left_and_nothing_else(three):
    # Stores without rows count as those of an earlier version; these have them.
    for key in (A, B, C):
        (three / f"{key.digest}.json").write_text('{"facts": {}, "made": 0, "rows": {}}')
    left = three / f".part.{'0' * 32}.npy"
    left.write_bytes(b"half")
    alone = three / f"{'1' * 32}.json"
    alone.write_text("{}")
    tidy(three)
    assert not left.exists() and not alone.exists()
    assert held(three) == ["A", "B", "C"]
