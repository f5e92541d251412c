"""Requests, and the trials that they are turned into."""

import h5py
import pytest

from kerasft.compare.request import Request, Trial, check, config_of, trials_of, with_backbones
from kerasft.errors import UserError


def test_a_trial_has_a_name_that_is_a_file_name():
    trial = Trial(1, 0.5, "MobileNetV2+MobileNet:alpha=0.75", "rbf-svm")
    assert trial.name == "MobileNetV2+MobileNet-alpha=0.75-rbf-svm-seed1-0.5"


def test_the_weights_bring_their_net_to_all_ways_where_none_is_named():
    brought = with_backbones(Request({"data.source": "photos", "model.weights": "sample"}))
    assert brought.backbones == ("MobileNetV2:alpha=0.35",)
    assert brought.flags["model.image_size"] == 96  # from scratch too, which has no weights
    plain = with_backbones(Request({"data.source": "photos"}))
    assert (plain.backbones, list(plain.flags)) == (("MobileNetV2",), ["data.source"])
    named = with_backbones(Request({"data.source": "photos"}, backbones=("VGG16", "VGG19")))
    assert named.backbones == ("VGG16", "VGG19")


def test_of_several_weights_each_backbone_takes_its_own(tmp_path):
    with h5py.File(tmp_path / "caffenet.h5", "w") as file:
        file.attrs["kerasft_backbone"] = "CaffeNet"
    weights = f"{tmp_path}/caffenet.h5+imagenet"
    what = with_backbones(
        Request(
            {"data.source": "photos", "model.weights": weights},
            backbones=("CaffeNet", "MobileNetV2", "CaffeNet+MobileNetV2"),
            ways=("as-is", "svm"),
        )
    )
    trials = trials_of(what)
    assert [(trial.way, trial.backbone) for trial in trials] == [
        ("svm", "CaffeNet"),
        ("as-is", "MobileNetV2"),
        ("svm", "MobileNetV2"),
        ("svm", "CaffeNet+MobileNetV2"),
    ]
    assert [config_of(what, trial).model.weights for trial in trials] == [
        f"{tmp_path}/caffenet.h5",
        *("imagenet", "imagenet"),
        weights,
    ]


def test_linear_comes_first_for_its_activations_and_the_largest_fraction_before_the_smaller():
    what = Request(
        {"data.source": "photos"},
        backbones=("MobileNetV2",),
        ways=("fc", "svm", "linear"),
        fractions=(0.5, 1.0),
    )
    check(what)
    assert [(trial.fraction, trial.way) for trial in trials_of(what)] == [
        (1.0, "linear"),
        (1.0, "svm"),
        (1.0, "fc"),
        (0.5, "linear"),
        (0.5, "svm"),
        (0.5, "fc"),
    ]


def refusal(*ways, **options):
    request = Request({"data.source": "photos"}, backbones=("MobileNetV2",), **options)
    with pytest.raises(UserError) as error:
        check(request if not ways else Request(**{**vars(request), "ways": ways}))
    assert error.value.exit_code == 2
    return str(error.value)


def test_ways_that_train_blocks_are_refused_where_the_head_reads_all_of_them():
    depths = ("head.features=depths",)
    why = (
        "would train blocks below the head, but with head.features = 'depths' the head reads the "
        "output of every block, so only the head can be trained. Expected blocks = 0, or a run "
        "with head.features = 'pooled'."
    )
    # Of the ways that are compared by default it is the first that can't be.
    assert refusal(sets=depths) == (
        f"the options have 1 problem:\n  phases: 'unfreeze' {why}\n"
        "So the way 'unfreeze' can't be compared. Leave it out of `ways`, or leave the option out."
    )
    assert f"'unfreeze' {why}\nSo the way 'full'" in refusal("full", sets=depths)
    assert f"'scratch' {why}\nSo the way 'scratch'" in refusal("scratch", sets=depths)
    check(
        Request(
            {"data.source": "photos"},
            sets=depths,
            backbones=("MobileNetV2",),
            ways=("as-is", "svm", "linear", "fc", "depths"),
        )
    )


def test_depths_is_refused_with_other_features():
    assert refusal("linear", "depths", sets=("head.features=flat",)) == (
        "head.features: expected 'depths', got 'flat'.\n"
        "So the way 'depths' can't be compared. Leave it out of `ways`, or leave the option out."
    )


def test_what_is_wrong_for_all_ways_is_said_of_none():
    text = refusal("depths", "linear", sets=("head.leave_out=18",))
    assert "leave_out is at most 17, got 18" in text and "way" not in text
