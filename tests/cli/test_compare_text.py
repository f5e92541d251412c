"""What a comparison leaves on the screen."""

from kerasft.cli.compare import compare_text

ROW = {
    "backbone": "MobileNetV2",
    "val_accuracy": 0.95,
    "test_accuracy": 0.9333,
    "ci95": [0.84, 0.97],
    "p_vs_best": None,
    "seconds": 83.0,
    "ms_per_image": 8.04,
    "size_mb": 9.61,
    "note": "",
    "notes": [],
}
STOPPED = dict.fromkeys(ROW, None) | {
    "name": "full",
    "backbone": "MobileNetV2",
    "note": "stopped: the budget was used up",
    "notes": [],
}
RESULT = {
    "methods": [
        {**ROW, "name": "bayes", "val_accuracy": 0.9, "p_vs_best": 0.031, "notes": ["Too sure."]},
        STOPPED,
        {**ROW, "name": "svm"},
    ],
    "left_out": [],
    "images": {"train": 1049, "validation": 225, "test": 225},
    "pass_seconds": 61.0,
    "mapping": ["ants: ant (310)", "roses: not in ImageNet"],
    "curve": {},
    "winner": {"name": "svm", "backbone": "MobileNetV2"},
    "advice": "Take svm.",
    "out": "compare/photos",
    "kept": None,
}


def test_the_best_on_validation_comes_first_and_what_was_stopped_last():
    assert compare_text(RESULT) == (
        "way    backbone     validation   test    95% interval     p  time  ms/image   MB\n"
        "svm    MobileNetV2       0.950  0.933  0.840 to 0.970        1:23       8.0  9.6\n"
        "bayes  MobileNetV2       0.900  0.933  0.840 to 0.970  0.03  1:23       8.0  9.6\n"
        "full   MobileNetV2                                                                "
        "stopped: the budget was used up\n"
        "\n"
        "1,049 train, 225 validation, 225 test. Validation chooses; p says how likely chance alone "
        "makes a way differ on test from the best one as much as it does.\n"
        "The frozen part was computed once for all, 1:01; time is what came on top, all settings "
        "tried.\n"
        "\n"
        "as-is:\n"
        "  ants: ant (310)\n"
        "  roses: not in ImageNet\n"
        "\n"
        "bayes on MobileNetV2: Too sure.\n"
        "\n"
        "Take svm.\n"
        "\n"
        "All of it: compare/photos, plot and table too."
    )


def test_ways_that_the_budget_had_no_time_for_are_named_with_what_they_would_take():
    left_out = [
        {"name": "full", "backbone": "MobileNetV2", "seconds": 2400.4, "left": 720.0},
        {"name": "scratch", "backbone": "A+B", "seconds": None, "left": 0.0},
    ]
    assert (
        "\n\n"
        "full on MobileNetV2 left out: it would take about 40:00, 12:00 of the budget was left.\n"
        "scratch on A+B left out: 0:00 of the budget was left.\n"
        "\n"
        "Take svm."
    ) in compare_text({**RESULT, "left_out": left_out})


def test_the_learning_curve_is_a_line_for_each_way():
    curve = {"svm on MobileNetV2": [[0.1, 0.7], [1.0, 0.95]], "knn on A+B": [[0.1, 0.5], [1, 0.8]]}
    assert (
        "validation accuracy with    10%   100%\n"
        "svm on MobileNetV2        0.700  0.950\n"
        "knn on A+B                0.500  0.800\n"
    ) in compare_text({**RESULT, "curve": curve})


def test_a_net_as_it_is_is_used_without_a_run():
    text = compare_text({**RESULT, "winner": {"name": "as-is", "backbone": "VGG16"}})
    assert text.endswith("Next:\n  kerasft predict imagenet:VGG16 PHOTO.jpg")


def test_a_winner_that_was_kept_is_named_as_a_command_takes_it():
    text = compare_text({**RESULT, "kept": "my photos/winner"})
    assert text.endswith(
        "Next:\n  kerasft evaluate 'my photos/winner'\n  kerasft export 'my photos/winner'"
    )
