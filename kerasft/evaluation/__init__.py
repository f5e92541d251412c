"""What a model says about photos, and how well.

    target      what a user names: a run, a model file, or a pretrained net as it is
    evaluate    `evaluate_run`: a Report on one split
    predict     `predict`: the best labels of files

Pixels are scored in float32 by model.keras, never from stored activations.

Shapes: N images, K classes; scores and logits are float32 [N,K].
"""
