"""What both sides of bench_gpu.py share: sizes, made images, the lock on the card, timing, rows.

A side is a child process that measures one net with kerasft (`gpu_kerasft.py`) or with timm
(`gpu_timm.py`). It prints a line of JSON for every row, which the parent collects.
"""

import fcntl
import json
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

MARK = "BENCH "  # begins a line that the parent reads
CLASSES = 10
# The nets: kerasft's name, and the name of the same architecture in timm.
NETS = {
    "MobileNetV2": "mobilenetv2_100",
    "ResNet50": "resnet50",
    "EfficientNetV2S": "tf_efficientnetv2_s",
    "ConvNeXtTiny": "convnext_tiny",
    "MobileNetV2:alpha=0.35": "mobilenetv2_035",
}


@dataclass(frozen=True)
class Size:
    """How large the work is.

    Attributes:
        side: side of the images, pixels.
        batch: number of images in a large batch.
        small: number of images in a small batch, of a step.
        others: further batch sizes of the pass, for the net named in `OTHERS_OF`.
        repeats: number of timed windows, whose median counts.
        seconds: shortest length of a window.
        steps: number of live steps between two looks at the clock.
        stored: size of the stored activations that the suffix is trained on, bytes; there are at
            least 8 batches of them, and at most 65536 rows.
        matrix: side of the matrices whose product measures the card's peak.
        copied: number of bytes that are copied to measure the bandwidth.
        checked: number of images whose activations are compared with exact ones.
        made: number of images of the made task.
        made_side: side of those images, pixels.
        epochs: number of epochs on the made task.
    """

    side: int = 224
    batch: int = 256
    small: int = 32
    others: tuple[int, ...] = (128, 512)
    repeats: int = 5
    seconds: float = 0.3
    steps: int = 10
    stored: int = 2 << 30
    matrix: int = 8192
    copied: int = 4 << 30
    checked: int = 16
    made: int = 512
    made_side: int = 64
    epochs: int = 5


FULL = Size()
QUICK = Size(
    side=32,
    batch=8,
    small=4,
    others=(),
    repeats=2,
    seconds=0.02,
    steps=2,
    stored=0,
    matrix=256,
    copied=1 << 24,
    checked=8,
    made=64,
    made_side=32,
    epochs=3,
)
OTHERS_OF = "ResNet50"


@dataclass(frozen=True)
class Job:
    """The work of a child.

    Attributes:
        net: the net, a key of NETS.
        task: "speed", for the rows that are compared; "more", for the others; or "curve".
        first: whether it is the first of its side, which measures the card.
        quick: whether the size is QUICK.
        until: time at which the child must have ended, as `time.time` counts.
        lock: path of the file whose lock stands for the card.
        only: kinds of rows to measure; empty: all.
    """

    net: str
    task: str
    first: bool
    quick: bool
    until: float
    lock: str
    only: tuple[str, ...] = ()

    @property
    def size(self) -> Size:
        return QUICK if self.quick else FULL

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Job":
        read = json.loads(text)
        return cls(**{**read, "only": tuple(read["only"])})


def say(**message: Any) -> None:
    """Sends a message to the parent."""
    print(MARK + json.dumps(message), flush=True)


class Rows:
    """The rows that a side measures, one after the other."""

    def __init__(self, job: Job, side: str) -> None:
        self._job, self._side = job, side
        self._longest = 5.0

    def measure(
        self,
        kind: str,
        name: str,
        *,
        of: Callable[[], dict[str, Any]],
        precision: str = "",
        batch: int = 0,
        work: str = "",
    ) -> None:
        """Measures a row and sends it; one that fails or has no time left says so.

        Args:
            kind: kind of row, which `--only` selects.
            name: name of the row, without the side.
            of: function that measures: figures of the row.
            precision: precision of the computation.
            batch: number of images in a batch.
            work: what is computed for an image, a key of `gpu_kerasft.count_work`.
        """
        if self._job.only and kind not in self._job.only:
            return
        began = time.time()
        if began + self._longest > self._job.until:
            figures: dict[str, Any] = {"note": "skipped: no time left"}
        else:
            try:
                figures = of()
            except Exception as error:
                traceback.print_exc()
                first = (str(error).strip() or "-").splitlines()[0]
                figures = {"note": f"failed: {type(error).__name__}: {first[:200]}"}
        took = time.time() - began
        self._longest = max(self._longest, took)
        say(
            row={
                "net": self._job.net,
                "side": self._side,
                "name": name,
                "precision": precision,
                "batch": batch,
                "work": work,
                "took_seconds": round(took, 1),
                **figures,
            }
        )

    @contextmanager
    def card(self) -> Iterator[None]:
        """Keeps the card for this process while something is timed."""
        with Path(self._job.lock).open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


class Windows:
    """Windows of time in which a stream of equal pieces of work is counted.

    The stream goes on across the windows, so that no window holds a start or an end of it.
    """

    def __init__(self, units: float, size: Size) -> None:
        """Begins when `mark` is first called.

        Args:
            units: number of images in a piece, or whatever is counted.
            size: how many windows, and how long.
        """
        self._units, self._size = units, size
        self._began: float | None = None
        self._pieces = 0
        self.rates: list[float] = []

    def mark(self) -> bool:
        """Notes that a piece has ended; returns whether there are enough windows."""
        now = time.perf_counter()
        if self._began is None:
            self._began = now
            return False
        self._pieces += 1
        if now - self._began >= self._size.seconds:
            self.rates.append(self._pieces * self._units / (now - self._began))
            self._began, self._pieces = now, 0
        return len(self.rates) >= self._size.repeats

    def figures(self) -> dict[str, float]:
        """Returns the median rate, and the spread: the range of the rates over the median."""
        median = float(np.median(self.rates))
        return {
            "images_per_second": median,
            "spread": (max(self.rates) - min(self.rates)) / median,
        }


def time_stream(stream: Iterator, units: float, size: Size, warm: int = 3) -> dict[str, float]:
    """Times a stream of pieces, after some to warm up; see `Windows`."""
    for _ in range(warm):
        next(stream)
    windows = Windows(units, size)
    for _ in stream:
        if windows.mark():
            break
    return windows.figures()


def random_batches(batch: int, side: int, dtype: str = "uint8") -> list[np.ndarray]:
    """Draws a few different batches of pixels [B,S,S,3], which are used in turn."""
    rng = np.random.default_rng(batch)
    shape = (batch, side, side, 3)
    return [rng.integers(0, 256, shape, dtype="uint8").astype(dtype) for _ in range(4)]


def made_task(size: Size) -> tuple[np.ndarray, np.ndarray]:
    """Draws the images of the made task, uint8 [N,S,S,3], whose colour tells their class, [N]."""
    rng = np.random.default_rng(7)
    labels = np.arange(size.made) % 3
    noise = rng.uniform(0, 150, (size.made, size.made_side, size.made_side, 3))
    tint = 90 * np.eye(3)[labels][:, None, None]
    return (noise + tint).astype("uint8"), labels.astype("int32")


def made_orders(size: Size) -> list[np.ndarray]:
    """Returns the order of the images in each epoch of the made task, int64 [N]."""
    return [np.random.default_rng(epoch).permutation(size.made) for epoch in range(size.epochs)]


def log(text: str) -> None:
    """Writes to the child's log."""
    print(text, file=sys.stderr, flush=True)
