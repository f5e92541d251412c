"""What training commands leave on the screen."""

from kerasft.cli.train import summary_text

PHASE = {
    "name": "head",
    "epochs": 2,
    "best_epoch": 1,
    "seconds": 1.0,
    "val_loss": 0.5,
    "val_accuracy": 0.5,
    "trainable_parameters": 10,
    "frozen_proof": "equal",
    "parts": [
        {"name": "prefix pass", "predicted_seconds": 29.4, "seconds": 31.0},
        {"name": "scoring", "predicted_seconds": None, "seconds": 2.0},
    ],
}


def test_a_run_without_test_images_says_so():
    phase = dict(PHASE)
    result = {"run": "a b", "seconds": 1.0, "phases": [phase], "test": None}
    text = summary_text({**result, "validation": {"accuracy": 0.5, "loss": 0.5, "n": 4}})
    assert "Test: no images" in text
    assert "; 10 parameters trained, frozen weights verified unchanged; " in text
    assert "; 0:01 (frozen features 0:31, predicted 0:29; scoring 0:02)" in text
    del phase["parts"]  # a run of version 0.1.0
    phase["precision"] = "mixed_bfloat16"
    text = summary_text({**result, "validation": None})
    assert "; 10 parameters trained in mixed_bfloat16, frozen weights verified" in text
    assert "frozen weights verified unchanged; 0:01\n" in text
    assert "kerasft export 'a b'" in text


def test_figures_by_class_have_a_line_with_the_lowest_recalls():
    recall = {f"c{n}": 1 - n / 10 for n in range(7)}
    test = {"accuracy": 0.7, "loss": 0.5, "n": 70, "ci95": [0.5, 0.8]}
    test |= {"base_rate": 0.25, "balanced_accuracy": 0.625, "recall": recall}
    result = {"run": "a", "seconds": 1.0, "phases": [PHASE], "validation": None, "test": test}
    assert (
        "70 images\n  balanced accuracy 0.625, base rate 0.250; lowest recall: c6 0.400, c5 0.500, "
        "c4 0.600, c3 0.700, c2 0.800\n"
    ) in summary_text(result)
    test["recall"] = {"cat": 1.0, "dog": 0.25}
    assert "; recall: dog 0.250, cat 1.000\n" in summary_text(result)
