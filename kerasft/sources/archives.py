"""Archives of photos, zip or tar, unpacked into the cache without trusting them.

Only plain files and folders are unpacked, below one folder and under names that every operating
system can write. Limits are checked while unpacking, on the bytes that come out and not on the
sizes in the headers. If anything is wrong, nothing is left behind.
"""

import bz2
import errno
import gzip
import hashlib
import io
import lzma
import os
import re
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

from kerasft.config.fields import Data
from kerasft.config.source_names import ending_of
from kerasft.errors import UserError
from kerasft.progress import Event, Progress
from kerasft.sources.folders import MAX_BYTES, is_image_name, is_left_behind
from kerasft.sources.layouts import place_of_folder
from kerasft.sources.photos import PhotoFolder
from kerasft.text import is_writable, listing, printable
from kerasft.unpacked import no_room, room, unpacked

MAX_ENTRIES = 2_000_000
MAX_DIRECTORY = 1 << 28  # bytes of a zip file's list of entries
MAX_HEADER = 1 << 20  # bytes of a tar file between two files; long names need thousands
MAX_DEPTH = 32  # levels of nested folders
MAX_RATIO = 100  # unpacked size / archive size; it is 1 for photos, 20 for BMP files of drawings
SLACK = 1 << 26  # bytes that may come out of any archive, whatever the ratio
RULES = 1  # version of these rules; raise it when the same archive gives different files
ADVICE = "If you trust it, unpack it yourself and pass the folder."
_TWO_KINDS = "is a file and a folder at once"
_NO_PLAIN_FILE = "is a link or a device, not a plain file"
_CHUNK = 1 << 20

_DAMAGE = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    OSError,  # raised by gzip and bz2, too
    ValueError,
    IndexError,
    RuntimeError,
    NotImplementedError,  # raised by zipfile for a compression that Python lacks
)


def find_archive(data: Data, progress: Progress) -> PhotoFolder:
    """Unpacks a zip or tar file that holds a folder of photos in one of the layouts.

    A single folder at the top is entered, so `photos/daisy/1.jpg` and `daisy/1.jpg` are
    equivalent.

    Raises:
        UserError: no such file (exit code 2); encrypted, damaged, or of an unsupported kind;
            entries that are not plain files or lead out of the folder, all at once; too many
            entries or bytes.
    """
    path = Path(data.source)
    if not os.path.isfile(path):
        raise UserError(
            f"{path}: no such file. Expected a zip or tar file of a folder of photos. If it was "
            "moved, pass `data=FILE`.",
            exit_code=2,
        )
    if ending_of(path.name) in (".tar.zst", ".tzst"):
        raise UserError(f"{path}: zstd archives can't be read. Pack it again, as .tar.gz or .zip.")
    with _reading(path), path.open("rb") as file:
        key = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
    folder, held = unpacked(
        str(path), {"archive": key, "rules": RULES}, lambda to: unpack(path, to, progress)
    )
    return place_of_folder(str(path), _top(folder), data, held)


def _top(folder: Path) -> Path:
    """Finds the folder of class or split folders, by entering folders that hold one folder only."""
    while True:
        inner = [entry for entry in folder.iterdir() if entry.is_dir()]
        if len(inner) != 1 or any(is_image_name(entry.name) for entry in folder.iterdir()):
            return folder
        if not any(entry.is_dir() for entry in inner[0].iterdir()):
            return folder  # its only folder is a class
        folder = inner[0]


def unpack(path: Path, to: Path, progress: Progress) -> None:
    """Writes the files of an archive into a folder.

    Args:
        path: zip or tar file; a tar file may be compressed with gzip, bzip2 or xz.
        to: empty folder. Hidden files and those of operating systems are not unpacked.
        progress: receiver of events of stage "unpack", one for each percent.

    Raises:
        UserError: see `find_archive`. The caller removes the files that were written so far.
        OSError: the files cannot be written.
    """
    limit = _Limit(path)
    entries = _zip_entries if ending_of(path.name) == ".zip" else _tar_entries
    problems: list[str] = []
    told = 0
    for number, entry in enumerate(entries(path, limit)):
        if number == MAX_ENTRIES:
            raise UserError(f"{path}: holds more than {MAX_ENTRIES:,} entries. {ADVICE}")
        parts, problem = _safe_parts(entry.name)
        problem = problem or entry.problem
        if not (parts or problem or entry.is_folder):
            problem = "has no name"
        if not (problem or problems) and not any(is_left_behind(part) for part in parts):
            problem = _write(entry, to.joinpath(*parts))
        if problem:
            problems.append(f"{printable(entry.name)}: {problem}")
        if int(entry.done * 100) > told:
            told = int(entry.done * 100)
            progress(Event("unpack", told, 100, figures={"what": f"unpacking {path.name}"}))
    if problems:
        raise UserError(
            f"{path}: {len(problems):,} of its entries can't be unpacked:{listing(problems, 20)}"
            f"\n  {ADVICE}"
        )


def _safe_parts(name: str) -> tuple[list[str], str]:
    """Splits an entry's name into folders and file. Returns these parts, and a problem or ""."""
    if not is_writable(name):
        return [], "has a name with control characters, or one that is not UTF-8"
    unified = name.replace("\\", "/")  # programs for Windows write backslashes
    if unified.startswith("/") or re.match("[A-Za-z]:", unified):
        return [], "has an absolute path"
    parts = [part for part in unified.split("/") if part not in ("", ".")]
    if ".." in parts:
        return [], "lies outside of the archive"
    if len(parts) > MAX_DEPTH:
        return [], f"lies more than {MAX_DEPTH} folders deep"
    if os.name == "nt" and any(":" in part for part in parts):
        return [], "has a name that Windows can't write"
    return parts, ""


class _Entry(NamedTuple):
    """An entry of an archive.

    Attributes:
        name: name in the archive, unchecked.
        problem: reason why it cannot be unpacked; "" for a plain file or a folder.
        is_folder: whether the entry is a folder.
        chunks: function that reads the file in pieces.
        done: share of the archive that has been read after this entry, 0 to 1.
    """

    name: str
    problem: str
    is_folder: bool
    chunks: Callable[[], Iterator[bytes]]
    done: float


def _write(entry: _Entry, target: Path) -> str:
    """Writes one file, or makes one folder. Returns a problem of its name or size, or ""."""
    size = 0
    try:
        try:
            (target if entry.is_folder else target.parent).mkdir(parents=True, exist_ok=True)
        except FileExistsError:
            return _TWO_KINDS
        if entry.is_folder:
            return ""
        with target.open("xb") as file:
            for chunk in entry.chunks():
                size += len(chunk)
                if size > MAX_BYTES:
                    return f"has more than {MAX_BYTES >> 20} MiB"
                file.write(chunk)
    except FileExistsError:
        return "occurs twice, or with a name that differs only in upper and lower case"
    except OSError as error:
        if error.errno in (errno.ENOTDIR, errno.EISDIR):
            return _TWO_KINDS
        if error.errno in (errno.ENAMETOOLONG, errno.EINVAL):
            return "has a name that can't be written here"
        raise
    return ""


class _Limit:
    """The limit on the bytes that may come out of an archive."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.most = path.stat().st_size * MAX_RATIO + SLACK
        self.room = room()
        self.spent = 0

    def spend(self, size: int) -> None:
        """Counts unpacked bytes. Raises UserError if there are too many."""
        self.spent += size
        if self.spent > self.most:
            raise UserError(
                f"{self.path}: unpacks to more than {MAX_RATIO} times its own size, like a file "
                f"that is made to fill the disk. {ADVICE}"
            )
        if self.spent > self.room:
            raise UserError(no_room(str(self.path)))


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turns the exceptions of a damaged archive into a UserError that names the archive."""
    try:
        yield
    except _DAMAGE as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"{path}: is damaged, truncated or unreadable: {reason}. Expected a zip file, or a tar "
            "file (plain, gzip, bzip2 or xz), as its name says."
        ) from error


def _zip_entries(path: Path, limit: _Limit) -> Iterator[_Entry]:
    with _reading(path), _Capped(io.FileIO(path)) as file, zipfile.ZipFile(file) as archive:
        infos = archive.infolist()
        if any(info.flag_bits & 1 for info in infos):
            raise UserError(f"{path}: is encrypted. Unpack it yourself and pass the folder.")
        whole = sum(info.compress_size + 1 for info in infos)
        done = 0
        for info in infos:
            done += info.compress_size + 1
            kind = stat.S_IFMT(info.external_attr >> 16) if info.create_system == 3 else 0
            plain = kind in (0, stat.S_IFREG, stat.S_IFDIR)
            yield _Entry(
                name=_zip_name(info),
                problem="" if plain else _NO_PLAIN_FILE,
                is_folder=info.is_dir(),
                chunks=partial(_zip_chunks, path, archive, info, limit),
                done=done / whole,
            )


def _zip_name(info: zipfile.ZipInfo) -> str:
    """Returns the full name; without a stated encoding it is UTF-8 if it can be (macOS)."""
    if not info.flag_bits & 0x800:
        try:
            return info.orig_filename.encode("cp437").decode("utf-8")
        except UnicodeError:
            pass
    return info.orig_filename


def _zip_chunks(
    path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo, limit: _Limit
) -> Iterator[bytes]:
    with _reading(path), archive.open(info) as file:
        while chunk := file.read(_CHUNK):
            limit.spend(len(chunk))
            yield chunk


class _Capped(io.BufferedReader):
    """A zip file whose list of entries is refused if it is long enough to fill the memory."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > MAX_DIRECTORY:
            raise zipfile.BadZipFile(f"its list of entries has more than {MAX_DIRECTORY >> 20} MiB")
        return super().read(size)


def _tar_entries(path: Path, limit: _Limit) -> Iterator[_Entry]:
    whole = path.stat().st_size
    with _reading(path), path.open("rb") as raw:
        stream = _Stream(_decompressed(raw), limit)
        stream.allow(MAX_HEADER)
        with tarfile.open(fileobj=stream, mode="r|", tarinfo=_Info) as archive:
            while (member := archive.next()) is not None:
                stream.allow(member.size + MAX_HEADER)
                plain = (member.isreg() and not member.issparse()) or member.isdir()
                yield _Entry(
                    name=member.name,
                    problem="" if plain else _NO_PLAIN_FILE,
                    is_folder=member.isdir(),
                    chunks=partial(_tar_chunks, path, archive, member),
                    done=min(1.0, raw.tell() / whole),
                )
                archive.members = []  # type: ignore[attr-defined]  # tarfile keeps all headers
            while stream.read(_CHUNK):  # checks gzip's checksum, which is at the end
                stream.allow(MAX_HEADER)


def _decompressed(raw: io.BufferedReader) -> io.BufferedIOBase:
    start = raw.read(6)
    raw.seek(0)
    if start.startswith(b"\x1f\x8b"):
        return gzip.GzipFile(fileobj=raw)
    if start.startswith(b"BZh"):
        return bz2.BZ2File(raw)
    if start.startswith(b"\xfd7zXZ\x00"):
        return lzma.LZMAFile(raw)
    return raw


class _Stream(io.BufferedIOBase):
    """The decompressed bytes of a tar file, counted against the limit while they are read."""

    def __init__(self, file: io.BufferedIOBase, limit: _Limit) -> None:
        self._file, self._limit = file, limit
        self._allowed = 0

    def allow(self, size: int) -> None:
        """Limits what may be read from here on: tarfile reads headers of any size into memory."""
        self._allowed = self._limit.spent + size

    def read(self, size: int | None = -1, /) -> bytes:
        chunk = self._file.read(size)
        self._limit.spend(len(chunk))
        if self._limit.spent > self._allowed:
            raise tarfile.ReadError(f"a header has more than {MAX_HEADER >> 20} MiB")
        return chunk


class _Info(tarfile.TarInfo):
    """A tar header that raises an error if it is damaged; tarfile would take it for the end."""

    @classmethod
    def fromtarfile(cls, tarfile_: tarfile.TarFile, /) -> "_Info":
        try:
            return super().fromtarfile(tarfile_)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(str(error)) from error


def _tar_chunks(path: Path, archive: tarfile.TarFile, member: tarfile.TarInfo) -> Iterator[bytes]:
    with _reading(path):
        file = archive.extractfile(member)
        assert file is not None  # None only for entries that are not plain files
        while chunk := file.read(_CHUNK):
            yield chunk
