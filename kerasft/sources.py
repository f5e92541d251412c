"""What can be named as data: `find_photos` turns it into a folder of files and a listing of them.

A new kind of source is a function here below `SOURCES`, a row of it, and the endings or the
prefix in `kinds.py` by which a name is known.
"""

from collections.abc import Callable

from kerasft.archives import find_archive
from kerasft.config import Data
from kerasft.folders import find_folder
from kerasft.kinds import kind_of
from kerasft.photos import Place
from kerasft.progress import Progress
from kerasft.tables import find_csv, find_parquet
from kerasft.tfds import find_tfds

SOURCES: dict[str, Callable[[Data, Progress], Place]] = {
    "folder": find_folder,
    "csv": find_csv,
    "parquet": find_parquet,
    "archive": find_archive,
    "tfds": find_tfds,
}


def find_photos(data: Data, progress: Progress) -> Place:
    """Finds the photos of a source; archives and sets of TFDS are unpacked if they are not yet.

    Args:
        data: `source` is what the user named.
        progress: told of what is unpacked.

    Raises:
        UserError: it can't be found, read or unpacked.
    """
    return SOURCES[kind_of(data.source)](data, progress)
