"""Archives, honest and hostile. What goes wrong must leave nothing behind, inside and outside."""

import bz2
import contextlib
import gzip
import io
import lzma
import shutil
import stat
import tarfile
import zipfile
from pathlib import Path

import pytest
from drawing import draw_photos
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kerasft.config.fields import Data
from kerasft.errors import UserError
from kerasft.progress import silent
from kerasft.sources import archives
from kerasft.sources.archives import find_archive, unpack
from kerasft.unpacked import list_unpacked, photo_folder


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("KERASFT_CACHE", str(tmp_path / "cache"))


def find(path):
    return find_archive(Data(source=path), silent)


def message_of(path):
    """The refusal, after which nothing has been left."""
    with pytest.raises(UserError) as error:
        find(path)
    assert list_unpacked(photo_folder()) == []
    if photo_folder().is_dir():
        assert {one.name for one in photo_folder().iterdir()} <= {"locks", "used"}
    return str(error.value)


def zipped(path, *entries, mode=0):
    """A zip file of (name, contents); `mode` is that of Unix, of all of them."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, contents in entries:
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            info.create_system = 3
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, contents)
    return path


def tarred(path, *entries, **fields):
    """A tar file of (name, contents); `fields` are those of TarInfo, of all of them."""
    with tarfile.open(path, "w") as archive:
        for name, contents in entries:
            info = tarfile.TarInfo(name)
            info.size = len(contents)
            for field, value in fields.items():
                setattr(info, field, value)
            archive.addfile(info, io.BytesIO(contents))
    return path


def files_of(place):
    return sorted(photo.path for photo in place.read().photos)


PLAIN = [("daisy/1.jpg", b"one"), ("tulip/2.jpg", b"two")]


@pytest.mark.parametrize(
    ("kind", "ending"),
    [
        ("zip", ".zip"),
        ("tar", ".tar"),
        ("gztar", ".tar.gz"),
        ("bztar", ".tar.bz2"),
        ("xztar", ".tar.xz"),
    ],
)
def test_an_archive_of_a_folder_lists_what_the_folder_lists(tmp_path, photos, kind, ending):
    made = shutil.make_archive(str(tmp_path / "packed"), kind, tmp_path, "photos")
    assert made.endswith(ending)
    place = find(made)
    listed = place.read()
    assert place.name == made
    assert listed.classes == {"": ("circle", "cross", "stripes")}
    assert sorted(photo.path for photo in listed.photos) == sorted(
        path.relative_to(photos).as_posix() for path in photos.rglob("*.*")
    )
    path = listed.photos[0].path
    assert (place.root / path).read_bytes() == (photos / path).read_bytes()


def test_folders_at_the_top_are_entered_until_there_are_classes_or_splits(tmp_path):
    split = zipped(
        tmp_path / "a.zip", ("x/y/train/daisy/1.jpg", b"1"), ("x/y/test/daisy/2.jpg", b"2")
    )
    assert files_of(find(split)) == ["test/daisy/2.jpg", "train/daisy/1.jpg"]
    one_class = zipped(tmp_path / "b.zip", ("daisy/1.jpg", b"1"))
    assert files_of(find(one_class)) == ["daisy/1.jpg"]
    beside = zipped(tmp_path / "c.zip", ("photos/daisy/1.jpg", b"1"), ("README.txt", b"2"))
    assert files_of(find(beside)) == ["daisy/1.jpg"]


def test_the_same_archive_under_another_name_is_unpacked_once(tmp_path):
    first = zipped(tmp_path / "a.zip", *PLAIN)
    found = find(first)
    shutil.copy(first, tmp_path / "b.zip")
    assert find(tmp_path / "b.zip").root == found.root
    zipped(first, *PLAIN, ("tulip/3.jpg", b"three"))
    assert files_of(find(first)) == ["daisy/1.jpg", "tulip/2.jpg", "tulip/3.jpg"]


def test_what_systems_leave_behind_is_passed_over_and_empty_folders_are_classes(tmp_path):
    path = zipped(
        tmp_path / "a.zip",
        *PLAIN,
        ("__MACOSX/daisy/._1.jpg", b"x"),
        ("daisy/.DS_Store", b"x"),
        ("tulip/Thumbs.db", b"x"),
        ("rose/", b""),
    )
    place = find(path)
    assert files_of(place) == ["daisy/1.jpg", "tulip/2.jpg"]
    assert place.read().classes[""] == ("daisy", "rose", "tulip")
    assert not (place.root / "__MACOSX").exists()


def test_names_in_the_ways_of_windows_and_macos_are_understood(tmp_path):
    path = zipped(tmp_path / "a.zip", ("photos\\daisy\\1.jpg", b"1"), ("photos\\rose\\2.jpg", b"2"))
    assert files_of(find(path)) == ["daisy/1.jpg", "rose/2.jpg"]
    raw = zipped(tmp_path / "b.zip", ("gr\u00fcn/1.jpg", b"1"), ("rot/2.jpg", b"2")).read_bytes()
    for flag in (b"PK\x03\x04\x14\x00\x00\x08", b"PK\x01\x02\x14\x03\x14\x00\x00\x08"):
        assert flag in raw
        raw = raw.replace(flag, flag[:-1] + b"\x00")  # macOS writes UTF-8 and does not say so
    (tmp_path / "b.zip").write_bytes(raw)
    assert files_of(find(tmp_path / "b.zip")) == ["gr\u00fcn/1.jpg", "rot/2.jpg"]


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("pack", [zipped, tarred])
@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("../evil.jpg", "lies outside of the archive"),
        ("daisy/../../evil.jpg", "lies outside of the archive"),
        ("daisy\\..\\..\\evil.jpg", "lies outside of the archive"),
        ("/tmp/evil.jpg", "has an absolute path"),
        ("C:\\evil.jpg", "has an absolute path"),
        (".", "has no name"),
        ("daisy/bell\a.jpg", "has a name with control characters, or one that is not UTF-8"),
        ("/".join(["a"] * 40), "lies more than 32 folders deep"),
        ("daisy/" + "x" * 300 + ".jpg", "has a name that can't be written here"),
        ("tulip/2.jpg", "occurs twice, or with a name that differs only in upper and lower case"),
        ("tulip/2.jpg/3.jpg", "is a file and a folder at once"),
    ],
)
def test_names_that_would_land_elsewhere_are_refused(tmp_path, pack, name, problem):
    path = pack(tmp_path / f"a.{pack.__name__[:3]}", *PLAIN, (name, b"evil"))
    shown = name.replace("\a", "\\x07")
    assert message_of(path) == (
        f"{path}: 1 of its entries can't be unpacked:\n  {shown}: {problem}\n"
        "  If you trust it, unpack it yourself and pass the folder."
    )
    assert not any(tmp_path.rglob("*evil*")) and not Path("/tmp/evil.jpg").exists()


def test_all_bad_entries_are_named_at_once(tmp_path):
    names = [(f"../{number}.jpg", b"x") for number in range(23)]
    message = message_of(zipped(tmp_path / "a.zip", *names, *PLAIN))
    assert "23 of its entries can't be unpacked:\n  ../0.jpg: lies outside" in message
    assert "\n  ../19.jpg: lies outside of the archive\n  and 3 more\n" in message


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE]
)
def test_links_and_devices_in_a_tar_file_are_refused(tmp_path, kind):
    path = tarred(tmp_path / "a.tar", ("daisy/1.jpg", b""), type=kind, linkname="/etc/passwd")
    assert "daisy/1.jpg: is a link or a device, not a plain file" in message_of(path)


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR])
def test_links_and_devices_in_a_zip_file_are_refused(tmp_path, kind):
    path = zipped(tmp_path / "a.zip", ("daisy/1.jpg", b"/etc/passwd"), mode=kind | 0o777)
    assert "daisy/1.jpg: is a link or a device, not a plain file" in message_of(path)


def test_a_sparse_file_is_refused(tmp_path):
    fields = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "daisy/1.jpg"}
    fields |= {"GNU.sparse.realsize": str(1 << 40)}
    contents = b"1\n0\n512\n".ljust(512, b"\0") + b"x" * 512
    path = tarred(tmp_path / "a.tar", ("daisy/1.jpg", contents), pax_headers=fields)
    assert "daisy/1.jpg: is a link or a device, not a plain file" in message_of(path)


def test_an_encrypted_zip_file_is_refused(tmp_path):
    raw = bytearray(zipped(tmp_path / "a.zip", *PLAIN).read_bytes())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        raw[raw.index(signature) + offset] |= 1
    (tmp_path / "a.zip").write_bytes(raw)
    assert message_of(tmp_path / "a.zip") == (
        f"{tmp_path / 'a.zip'}: is encrypted. Unpack it yourself and pass the folder."
    )


ZEROS = b"\0" * (8 << 20)


@pytest.fixture
def low_limits(monkeypatch):
    monkeypatch.setattr(archives, "SLACK", 1 << 20)
    monkeypatch.setattr(archives, "MAX_BYTES", 16 << 20)


@pytest.mark.parametrize("name", ["daisy/1.jpg", ".hidden/1.jpg"])
@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, lzma.compress])
def test_a_tar_file_that_is_a_bomb_is_stopped(tmp_path, low_limits, compress, name):
    path = tarred(tmp_path / "plain.tar", (name, ZEROS))
    path = tmp_path / "a.tar.gz"
    path.write_bytes(compress((tmp_path / "plain.tar").read_bytes()))
    assert "unpacks to more than 100 times its own size" in message_of(path)


def test_a_zip_file_that_is_a_bomb_is_stopped(tmp_path, low_limits):
    path = zipped(tmp_path / "a.zip", *PLAIN, ("daisy/2.jpg", ZEROS))
    assert "unpacks to more than 100 times its own size" in message_of(path)


def test_a_bomb_whose_entries_lie_over_each_other_is_stopped(tmp_path, low_limits):
    path = zipped(tmp_path / "a.zip", ("daisy/0.jpg", b"\0" * (1 << 19)))
    with zipfile.ZipFile(path) as archive:
        first = archive.infolist()[0]
    with zipfile.ZipFile(path, "a") as archive:
        for number in range(1, 50):  # all of them are the bytes of the first
            twin = zipfile.ZipInfo("daisy/0.jpg")
            for field in ("compress_type", "CRC", "compress_size", "file_size", "header_offset"):
                setattr(twin, field, getattr(first, field))
            twin.filename = f"daisy/{number}.jpg"
            archive.filelist.append(twin)
        archive._didModify = True
    assert message_of(path)  # other names in the headers, overlaps, or too much: never unpacked


def test_a_bomb_within_a_header_is_stopped_before_it_fills_the_memory(tmp_path):
    path = tarred(tmp_path / "a.tar", *PLAIN, pax_headers={"comment": "x" * (3 << 20)})
    assert "a header has more than 1 MiB" in message_of(path)


def test_a_file_that_is_no_photo_by_its_size_is_refused(tmp_path, low_limits):
    monkeyed = io.BytesIO(bytes(range(256)) * (17 << 12)).getvalue()
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("daisy/film.jpg", monkeyed)
    assert "daisy/film.jpg: has more than 16 MiB" in message_of(tmp_path / "a.zip")


def test_too_many_entries_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "MAX_ENTRIES", 2)
    path = zipped(tmp_path / "a.zip", *PLAIN)
    find(path)
    shutil.rmtree(tmp_path / "cache")
    path = zipped(tmp_path / "b.zip", *PLAIN, ("rose/3.jpg", b"3"))
    assert "holds more than 2 entries" in message_of(path)


def test_a_list_of_entries_that_would_fill_the_memory_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "MAX_DIRECTORY", 10_000)
    path = zipped(tmp_path / "a.zip", *((f"daisy/{number:0200}.jpg", b"") for number in range(99)))
    assert "its list of entries has more than" in message_of(path)


def test_a_full_disk_is_known_before_it_is_full(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "room", lambda: 4)
    assert "is full but for 1.0 GB, which must stay free" in message_of(
        zipped(tmp_path / "a.zip", *PLAIN)
    )


@pytest.mark.parametrize("ending", ["zip", "tar", "tar.gz", "tar.bz2", "tar.xz"])
@pytest.mark.parametrize("harm", ["cut", "flip", "text", "empty"])
def test_a_damaged_archive_is_one_sentence(tmp_path, ending, harm):
    draw_photos(tmp_path / "photos", per_class=2)
    kind = {"zip": "zip", "tar": "tar", "tar.gz": "gztar", "tar.bz2": "bztar", "tar.xz": "xztar"}
    path = Path(shutil.make_archive(str(tmp_path / "a"), kind[ending], tmp_path, "photos"))
    raw = bytearray(path.read_bytes())
    if harm == "flip" and ending == "tar":
        start = raw.index(b"photos/cross/cross-001.jpg")
        raw[start] ^= 255  # of a header: the sums of a tar file are over these only
    elif harm == "flip":
        raw[len(raw) // 2] ^= 255
    path.write_bytes(
        {"cut": raw[: len(raw) // 2], "flip": raw, "text": b"not an archive", "empty": b""}[harm]
    )
    message = message_of(path)
    assert message.startswith(f"{path}: is damaged, truncated or unreadable: ")
    assert "\n" not in message and "Traceback" not in message


def test_a_tar_file_without_an_end_was_cut_off(tmp_path):
    path = tarred(tmp_path / "a.tar", *PLAIN)
    path.write_bytes(path.read_bytes()[:1024])  # behind the first file
    assert "is damaged, truncated or unreadable" in message_of(path)


def test_a_file_that_is_not_there_is_a_mistake_in_typing(tmp_path):
    with pytest.raises(UserError, match="no such file") as error:
        find(tmp_path / "nowhere.zip")
    assert error.value.exit_code == 2


def test_zstd_is_named_as_what_cannot_be_read(tmp_path):
    (tmp_path / "a.tar.zst").touch()
    assert "Pack it again, as .tar.gz or .zip" in message_of(tmp_path / "a.tar.zst")


def test_progress_is_told_in_hundredths_and_ends_with_all(tmp_path, photos):
    path = shutil.make_archive(str(tmp_path / "a"), "gztar", photos)
    events = []
    (tmp_path / "to").mkdir()
    unpack(Path(path), tmp_path / "to", events.append)
    assert (events[-1].stage, events[-1].total) == ("unpack", 100)
    assert [event.done for event in events] == sorted({event.done for event in events})


@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.booleans(), st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=4))
def test_whatever_bytes_are_damaged_it_is_one_sentence(tmp_path_factory, as_zip, changes):
    top = tmp_path_factory.mktemp("damage")
    path = (zipped if as_zip else tarred)(top / ("a.zip" if as_zip else "a.tar"), *PLAIN)
    raw = bytearray(path.read_bytes())
    for place, value in changes:
        raw[int(place * min(len(raw) - 1, 2100))] = value  # behind it a tar file has zeros only
    path.write_bytes(raw)
    (top / "to").mkdir()
    with contextlib.suppress(UserError):
        unpack(path, top / "to", silent)
    shutil.rmtree(top)


names = st.lists(
    st.sampled_from(["..", ".", "", "a", "B", "b", "\u00fc", "a.jpg", "C:", "\\", "x" * 256, "\0"])
    | st.text(max_size=5),
    min_size=1,
    max_size=5,
).map("/".join)


@pytest.mark.filterwarnings("ignore:Duplicate name")
@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.tuples(names, st.binary(max_size=9)), max_size=5), st.booleans())
def test_whatever_the_names_are_nothing_is_written_outside(tmp_path_factory, entries, as_zip):
    top = tmp_path_factory.mktemp("fuzz")
    inside = top / "outer" / "inside"
    inside.mkdir(parents=True)
    path = top / ("a.zip" if as_zip else "a.tar")
    try:
        (zipped if as_zip else tarred)(path, *entries)
    except (ValueError, UnicodeError, tarfile.TarError):
        return  # Python itself can't write such a name
    before = path.read_bytes()
    with contextlib.suppress(UserError):
        unpack(path, inside, silent)
    assert path.read_bytes() == before
    assert {one.name for one in top.iterdir()} == {path.name, "outer"}
    assert [one.name for one in (top / "outer").iterdir()] == ["inside"]
    for one in inside.rglob("*"):
        assert one.is_file() or one.is_dir()
        assert not one.is_symlink()
    shutil.rmtree(top)
