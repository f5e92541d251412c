"""Damaged and hostile tables, lists and archives: photos of their folder, or one refusal."""

import functools
import io
import struct
import tarfile
import zipfile

import pyarrow as pa
import pytest
from damaged import NAMES, Place, cases, damaged, prove, survives
from hypothesis import strategies as st
from pyarrow import parquet

from kerasft.config.fields import Data
from kerasft.progress import silent
from kerasft.sources.archives import unpack
from kerasft.sources.photos import Listing
from kerasft.sources.tables import find_csv, find_list, find_parquet, labels_of_table

FILES = ("a.jpg", "b.jpg", "c.jpg", "d.jpg", "sub/e.jpg")
LABELS = ("cat", "dog", "cat", "dog", "cat")


def table_place(tmp_path, name):
    place = Place.of(tmp_path, name)
    for file in FILES:
        (place.path.parent / file).parent.mkdir(exist_ok=True)
        (place.path.parent / file).touch()
    (place.path.parent.parent / "secret.jpg").touch()
    return place


CSV = b"path,label,split,group\n" + b"".join(
    f"{file},{label},{split},{number}\n".encode()
    for number, (file, label, split) in enumerate(
        zip(FILES, LABELS, ("train", "train", "val", "test", "train"), strict=True)
    )
)
CELLS = st.sampled_from(
    [
        *(*NAMES, *FILES, "path", "label", "split", "cat", "train", "1", "0.5", "1|2", '"', '""'),
        *(
            "../secret.jpg",
            "sub/../../secret.jpg",
            "9" * 5_000,
            "\ufeff",
            "\u2028",
            "file:///a.jpg",
        ),
    ]
) | st.text(max_size=3)


def as_csv(rows, mark, quote, end):
    cells = [[f'"{cell}"' if quote else cell for cell in row] for row in rows]
    return end.join(mark.join(row) for row in cells)


GRAMMAR = st.builds(
    lambda head, *rest: as_csv([["path", "label"][: 2 * head], *rest[0]], *rest[1:]),
    st.booleans(),
    st.lists(st.lists(CELLS, min_size=1, max_size=4), max_size=6),
    st.sampled_from(",;\t"),
    st.booleans(),
    st.sampled_from(["\n", "\r\n", "\r", "\n\n"]),
).flatmap(
    lambda text: st.sampled_from(["utf-8", "utf-16", "latin-1", "utf-8-sig", "cp437"]).map(
        lambda encoding: text.encode(
            encoding, "surrogatepass" if encoding.startswith("utf") else "replace"
        )
    )
)


def are_photos_of_the_folder(listed):
    return isinstance(listed, Listing) and {photo.path for photo in listed.photos} <= {
        *FILES, "labels.csv", "labels.txt", "labels.parquet"
    }  # fmt: skip


@cases
def test_a_damaged_csv_is_photos_of_its_folder_or_one_refusal(number, tmp_path):
    place = table_place(tmp_path, "labels.csv")
    data = Data(source=place.path)

    def check(content):
        survives(place, content, lambda: find_csv(data, silent).read(), are_photos_of_the_folder)
        survives(place, content, lambda: labels_of_table(place.path), dict)

    secret = place.path.parent.parent / "secret.jpg"
    found = [CSV + f"{path},cat,train,9\n".encode() for path in ("../secret.jpg", secret)]
    prove(number, damaged(CSV) | GRAMMAR, check, found)


@cases
def test_a_damaged_list_is_photos_of_its_folder_or_one_refusal(number, tmp_path):
    place = table_place(tmp_path, "labels.txt")
    data = Data(source=place.path)
    good = "".join(f"{file} {label}\n" for file, label in zip(FILES, LABELS, strict=True)).encode()

    def check(content):
        survives(place, content, lambda: find_list(data, silent).read(), are_photos_of_the_folder)

    prove(number, damaged(good) | GRAMMAR, check)


@functools.cache
def parquet_files():
    columns = {"path": list(FILES), "label": list(LABELS), "width": [1, 2, 3, 4, 5]}
    files = []
    for packing in ("none", "snappy", "zstd"):
        content = io.BytesIO()
        parquet.write_table(pa.table(columns), content, compression=packing)
        files.append(content.getvalue())
    return files


@cases
def test_a_damaged_parquet_file_is_photos_of_its_folder_or_one_refusal(number, tmp_path):
    place = table_place(tmp_path, "labels.parquet")
    data = Data(source=place.path)

    def read():
        return find_parquet(data, silent).read()

    for good in parquet_files():
        place.path.write_bytes(good)
        assert len(read().photos) == len(FILES)

    def check(content):
        survives(place, content, read, are_photos_of_the_folder)

    half = parquet_files()[0].replace(b"sub/e.jpg", b"sub/e.j\x80g")  # was a UnicodeDecodeError
    prove(number, damaged(*parquet_files()), check, [half])


# archives


def archive_of(kind, entries=(("cat/a.jpg", b"one" * 50), ("dog/b.jpg", b"two" * 50))):
    content = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in entries:
                archive.writestr(zipfile.ZipInfo(name), data)
    else:
        with tarfile.open(fileobj=content, mode=f"w:{kind}") as archive:
            for name, data in entries:
                info = tarfile.TarInfo(name)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    return content.getvalue()


def tar_with(kind, target):
    """Writes a tar file with a link, a device or a folder, and a file behind it."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w", format=tarfile.PAX_FORMAT) as archive:
        link = tarfile.TarInfo("inside")
        link.type, link.linkname = kind, target
        archive.addfile(link)
        info = tarfile.TarInfo("inside/a.jpg")
        info.size = 3
        archive.addfile(info, io.BytesIO(b"abc"))
    return content.getvalue()


def claiming(size):
    """Writes a zip file whose directory claims another size, and a tar file whose header does."""
    content = bytearray(archive_of("zip"))
    at = content.index(b"PK\x01\x02")
    content[at + 24 : at + 28] = struct.pack("<I", size & 0xFFFFFFFF)
    return bytes(content)


NAME = st.lists(st.sampled_from(NAMES) | st.text(max_size=5), min_size=1, max_size=3).map("/".join)
ENTRIES = st.lists(st.tuples(NAME, st.binary(max_size=9)), max_size=4)
LINKS = st.builds(
    tar_with,
    st.sampled_from(
        [
            *(tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE),
            *(tarfile.DIRTYPE, tarfile.CONTTYPE, tarfile.GNUTYPE_SPARSE),
        ]
    ),
    st.sampled_from(["..", "/", "/tmp", "../../x", "a", "", "inside"]),
)


def written(kind, entries):
    try:
        return archive_of(kind, entries)
    except (ValueError, UnicodeError, tarfile.TarError):
        return b""  # Python itself can't write such a name


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(("kind", "name"), [("zip", "a.zip"), ("", "a.tar"), ("gz", "a.tar.gz")])
@cases
def test_a_damaged_archive_is_unpacked_into_its_folder_or_refused(number, kind, name, tmp_path):
    place = Place.of(tmp_path, name)
    folder = tmp_path / "outer" / "to"
    place = Place(place.path, tmp_path, (folder,))

    def read():
        for path in sorted(folder.rglob("*"), reverse=True) if folder.exists() else []:
            path.rmdir() if path.is_dir() else path.unlink()
        folder.mkdir(exist_ok=True)
        unpack(place.path, folder, silent)
        for path in folder.rglob("*"):
            assert not path.is_symlink() and (path.is_file() or path.is_dir())
        return True

    good = archive_of(kind)
    drawn = damaged(good) | st.builds(written, st.just(kind), ENTRIES)
    drawn = drawn if kind else drawn | LINKS
    names = ("../harm", "cat/../../../harm", "/harm", "..\\harm", "cat/\x1b[2J")
    found = [archive_of(kind, ((name, b"x"),)) for name in names]
    found += [claiming(2**60 - 1), claiming(0)] if kind == "zip" else []
    found += [] if kind else [tar_with(tarfile.SYMTYPE, ".."), tar_with(tarfile.LNKTYPE, "/harm")]
    prove(number // 3 + 1, drawn, lambda content: survives(place, content, read), found)
    assert survives(place, good, read) is True
    assert (folder / "cat" / "a.jpg").read_bytes() == b"one" * 50
