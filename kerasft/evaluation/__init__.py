"""Predictions of a model, and their quality.

    evaluate    `evaluate_run` scores the images of a split and makes a Report
    predict     `predict` returns the best labels of image files

Pixels are scored in float32 by model.keras, never from stored activations.

Shapes: N images, K classes; scores and logits are float32 [N,K].
"""
