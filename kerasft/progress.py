"""Progress: what the library tells while it works, for whoever called it to show.

The library never prints. It calls `progress(Event(...))`; the command line draws these, a
notebook may ignore them. A sentence goes through `logging` (logger "kerasft") instead.

Stages:
    unpack  photos of an archive or of TFDS become files: done of total; figure what
    draw    the sample is drawn: done of total images
    images  scanning files: done of total files
    phase   a phase starts; figures blocks, trainable_parameters, epochs
    store   its activations are found, or are going to be stored; figures found (0 or 1), bytes,
            later_bytes (of the stores of a later cut), images, views, validation
    pass    images go through the frozen part: done of total; figures images_per_second,
            seconds_left
    predicted   the first steps of a part are done; figures what ("prefix pass", "epochs" or
            "scoring") and seconds, of the whole part
    batch   within an epoch: done of total batches; figures epoch, epochs, loss, accuracy,
            images_per_second, seconds_left (of the phase)
    epoch   an epoch has ended: done of total epochs, from 1; figures loss, accuracy, val_loss,
            val_accuracy, learning_rate, images_per_second, best
    entry   one way of a comparison is done: done of total; figures name, backbone, note, and where
            it has them val_accuracy and seconds
    check   scoring or parity: done of total; figure what
    import  layers of another tool's file are written: done of total; figure what
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Event:
    """One step of the work.

    Args:
        stage: one of the stages listed above.
        done: how many steps of the stage are finished, 0 to `total`.
        total: how many steps the stage has.
        phase: name of the training phase, or "" outside of one.
        figures: numbers to show, by name.
    """

    stage: str
    done: int
    total: int
    phase: str = ""
    figures: Mapping[str, float | int | str] = field(default_factory=dict)


Progress = Callable[[Event], None]


def silent(event: Event) -> None:
    """Shows nothing: the default wherever a function takes `progress`."""
