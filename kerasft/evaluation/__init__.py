"""Predictions of a model, their reasons and their quality.

    evaluate    `evaluate_run` scores the images of a split and makes a Report
    classifier  what is measured: a model of a run, or an export
    predict     `predict` returns the best labels of image files
    explain     `explain` shows which places of image files speak for a class
    maps        the last feature maps of a model, and a class's gradient in them
    nearest     the nearest training photos, for a head in which they vote
    photo_files photos that somebody names as files and folders, found and checked
    report      `report_run` writes the page of a run
    answers     a table of answers, a row for each photo, as CSV
    drift       `drift_run` compares a folder of new photos with the training photos
    calibrate   `calibrate_run` fits the temperature and the threshold of a finished run

Pixels are scored in float32 by model.keras, or by an export in its runtime, never from stored
activations.

Shapes: N images, K classes; scores and logits are float32 [N,K].
"""
