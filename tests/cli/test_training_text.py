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


RESULT = {
    "run": "a b",
    "seconds": 39.2,
    "phases": [PHASE],
    "validation": {"accuracy": 0.5, "loss": 0.5, "n": 4},
    "test": {"accuracy": 0.967, "loss": 0.16, "n": 60, "ci95": [0.886, 0.991], "base_rate": 0.517},
}


def test_the_summary_is_what_was_reached_what_was_kept_and_where_it_lies():
    assert summary_text(RESULT).splitlines() == [
        "Test accuracy 0.967 (95% interval 0.886 to 0.991, 60 images), base rate 0.517",
        "Kept: phase head, epoch 1 of 2 (validation 0.500); frozen weights unchanged",
        "Run: a b, 0:39. Next: kerasft unfreeze-and-continue 'a b'",
    ]


def test_a_run_without_test_images_says_what_it_reached_on_validation():
    lines = summary_text({**RESULT, "test": None}).splitlines()
    assert lines[0] == (
        "Validation accuracy 0.500 (95% interval 0.150 to 0.850, 4 images); no test images"
    )
    assert len(lines) == 3
    lines = summary_text({**RESULT, "test": None, "validation": None}).splitlines()
    assert lines[0] == "Nothing was scored: no validation and no test images"


def kept(**changes):
    return summary_text({**RESULT, "phases": [{**PHASE, **changes}]}).splitlines()[-2]


def test_what_was_kept_says_how_it_came_about():
    after = " (validation 0.500); frozen weights unchanged"
    assert kept(best_epoch=0) == (
        f"Kept: phase head, the solved head, better than 2 epochs of training{after}"
    )
    assert kept(alpha=0.25, precision="mixed_bfloat16") == (
        "Kept: phase head, epoch 1 of 2 in mixed_bfloat16, mixed with the start of the phase, "
        f"alpha 0.25{after}"
    )
    solved = {"method": "svm", "parameters": {"C": 0.1}, "notes": []}
    assert kept(**solved) == f"Kept: phase head, svm with C 0.1{after}"


def test_remarks_and_a_phase_that_did_not_improve_stand_above():
    first = {**PHASE, "notes": ["svm did not converge."]}
    last = {**PHASE, "name": "unfreeze", "improved": False, "val_loss": 0.6}
    lines = summary_text({**RESULT, "phases": [first, last]}).splitlines()
    assert lines[:2] == [
        "svm did not converge.",
        "Phase unfreeze did not improve validation: loss 0.6000, before 0.5000.",
    ]
    assert lines[3].startswith("Kept: phase head, ")
    assert lines[4] == "Run: a b, 0:39. Next: kerasft export 'a b'"


def test_a_head_that_no_phase_can_train_further_is_exported_next():
    solved = {**PHASE, "method": "knn", "parameters": {"k": 5}}
    assert summary_text({**RESULT, "phases": [solved]}).endswith("Next: kerasft export 'a b'")
