"""A run whose first training step does not fit the memory of its process.

`python out_of_memory.py FOLDER` limits its address space, trains on the photos in FOLDER/photos,
then lifts the limit, goes on with half the batch size, and trains the same from the start. It
prints what was said as JSON.
"""

import json
import logging
import os
import resource
import sys
from pathlib import Path

ROOM = 400 << 20  # bytes that the process may take beside what it has taken


def main(folder: Path) -> None:
    os.environ["KERASFT_CACHE"] = str(folder / "cache")
    import keras
    from tiny import TINY, tiny_constructor

    from kerasft.backbones.table import BACKBONES

    BACKBONES["Tiny"] = TINY
    keras.applications.Tiny = tiny_constructor
    from tiny_run import small, weights

    from kerasft.errors import UserError
    from kerasft.training.train import train_run

    logging.disable(logging.CRITICAL)

    def config(side: int, batch: int):
        sets = ["cache.mode=off", "phases.0.epochs=1", f"model.image_size={side}"]
        return small(folder / "photos", *sets, **{"phases.0.batch_size": batch})

    train_run(config(32, 8), folder / "small")  # what loads once is loaded
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    limit = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (taken + ROOM, limit[1]))
    told = {}
    try:
        train_run(config(1536, 24), folder / "run")
    except UserError as error:
        told["first"] = str(error)
    resource.setrlimit(resource.RLIMIT_AS, limit)
    told["files"] = sorted(path.name for path in (folder / "run").iterdir())
    train_run(config(1536, 12), folder / "run", resume=True)
    train_run(config(1536, 12), folder / "again")
    told["equal"] = weights(folder / "run") == weights(folder / "again")
    try:
        train_run(config(1536, 8), folder / "run", resume=True)
    except UserError as error:
        told["later"] = str(error)
    print(json.dumps(told))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
