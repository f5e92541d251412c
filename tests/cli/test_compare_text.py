"""What a comparison leaves on the screen."""

from dataclasses import replace
from pathlib import Path

from kerasft.cli.compare import compare_text
from kerasft.compare.result import ComparisonResult, LeftOut
from kerasft.compare.verdict import Means, WayResult

MEANS = Means(
    val_accuracy=0.96,
    val_corrected=0.95,
    val_loss=0.2,
    test_accuracy=0.9333,
    macro_f1=0.93,
    seconds=83.0,
    ms_per_image=8.04,
    ci95=(0.84, 0.97),
    size_mb=9.61,
    converged=True,
)
SVM = WayResult(
    way="svm",
    backbone="MobileNetV2",
    seeds=1,
    stopped=False,
    note="",
    classes=5,
    means=MEANS,
    settings=({"c": 0.01},),
    notes=(),
)
BAYES = replace(
    SVM,
    way="bayes",
    means=replace(MEANS, val_corrected=0.9),
    notes=("Too sure.",),
    p_vs_best=0.031,
)
STOPPED = replace(SVM, way="full", stopped=True, note="stopped: the budget was used up", means=None)
RESULT = ComparisonResult(
    ways=(BAYES, STOPPED, SVM),
    left_out=(),
    winner=SVM,
    corrected=0.94,
    advice="Take svm.",
    classes=("ants", "roses"),
    images={"train": 1049, "validation": 225, "test": 225},
    pass_seconds=61.0,
    mapping=("ants: ant (310, insect)", "roses: not in ImageNet"),
    curves={},
    out=Path("compare/photos"),
    kept=None,
)


def test_the_best_on_validation_comes_first_and_what_was_stopped_last():
    assert compare_text(RESULT) == (
        "way    backbone     corrected   test    95% interval     p  time  ms/image   MB\n"
        "svm    MobileNetV2      0.950  0.933  0.840 to 0.970        1:23       8.0  9.6\n"
        "bayes  MobileNetV2      0.900  0.933  0.840 to 0.970  0.03  1:23       8.0  9.6\n"
        "full   MobileNetV2                                                               "
        "stopped: the budget was used up\n"
        "\n"
        "Images: 1,049 train, 225 validation, 225 test. The validation split decides: the table "
        "has the accuracy there, corrected for the luck of having been chosen on it. p is the "
        "probability of a difference to the winner as large as the one on test if both were "
        "equally good.\n"
        "The frozen part took 1:01, once for all ways; time is what each way took in addition, "
        "with all the settings that it tried.\n"
        "\n"
        "as-is:\n"
        "  ants: ant (310, insect)\n"
        "  roses: not in ImageNet\n"
        "\n"
        "bayes on MobileNetV2: Too sure.\n"
        "\n"
        "Take svm.\n"
        "\n"
        "Page, table, plots and all figures: compare/photos"
    )


def test_ways_that_the_budget_had_no_time_for_are_named_with_what_they_would_take():
    left_out = (
        LeftOut("full", "MobileNetV2", seconds=2400.4, left=720.0),
        LeftOut("scratch", "A+B", seconds=None, left=0.0),
    )
    assert (
        "\n\n"
        "full on MobileNetV2 was left out: it would take about 40:00, but only 12:00 of the budget "
        "was left.\n"
        "scratch on A+B was left out: 0:00 of the budget was left.\n"
        "\n"
        "Take svm."
    ) in compare_text(replace(RESULT, left_out=left_out))


def test_the_learning_curve_is_a_line_for_each_way():
    curves = {
        "svm on MobileNetV2": ((0.1, 0.7), (1.0, 0.95)),
        "knn on A+B": ((0.1, 0.5), (1.0, 0.8)),
    }
    assert (
        "validation accuracy with    10%   100%\n"
        "svm on MobileNetV2        0.700  0.950\n"
        "knn on A+B                0.500  0.800\n"
    ) in compare_text(replace(RESULT, curves=curves))


def test_a_net_as_it_is_is_used_without_a_run():
    text = compare_text(replace(RESULT, winner=replace(SVM, way="as-is", backbone="VGG16")))
    assert text.endswith("Next:\n  kerasft predict imagenet:VGG16 PHOTO.jpg")


def test_a_winner_that_was_kept_is_named_as_a_command_takes_it():
    text = compare_text(replace(RESULT, kept=Path("my photos/winner")))
    assert text.endswith(
        "Next:\n  kerasft evaluate 'my photos/winner'\n  kerasft export 'my photos/winner'"
    )
