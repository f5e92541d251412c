from pathlib import Path

from kerasft.cli.nets import import_text
from kerasft.importers.caffe import CaffeImported
from kerasft.importers.weights_writer import FilledLayer, Imported

RESULT = Imported(
    backbone="CaffeNet",
    file=Path("caffenet.h5"),
    bytes=243_860_000,
    parameters=60_965_224,
    top=True,
    layers=(FilledLayer("conv1", "conv1"), FilledLayer("fc6", "fc6")),
    left_out=(),
)


def test_all_that_fits_is_a_line_and_what_to_do_next():
    assert import_text(RESULT).splitlines() == [
        "Wrote caffenet.h5 (244 MB): 60,965,224 parameters of CaffeNet, 2 layers.",
        "",
        "Next: kerasft train --data PHOTOS/ --weights caffenet.h5",
    ]


def test_what_does_not_fit_is_named_and_what_the_mean_was():
    more = {"top": False, "unused": ("fc9", "loss3"), "mean": (104.0, 116.5, 122.25)}
    more["left_out"] = ("fc8_flickr (fc8): expected weights 1000x4096, got 20x4096.",)
    result = CaffeImported(**{**vars(RESULT), **more}, mean_spread=13.25)
    assert import_text(result).splitlines() == [
        "Wrote caffenet.h5 (244 MB): 60,965,224 parameters of CaffeNet, 2 layers.",
        "Mean of blue, green, red: 104.00, 116.50, 122.25; the mean image differs from it by 13.2 "
        "at most.",
        "Left out, because they do not fit:",
        "  fc8_flickr (fc8): expected weights 1000x4096, got 20x4096.",
        "Not used: 'fc9', 'loss3'.",
        "",
        "Next: kerasft train --data PHOTOS/ --weights caffenet.h5",
    ]
