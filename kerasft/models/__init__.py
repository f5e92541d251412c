"""Keras graphs: a backbone, where it can be cut, and model.keras.

    build      a backbone with its preprocessing inside: pixels [B,S,S,3] to features [B,F]
    alexnet    AlexNet and CaffeNet, which Keras Applications lacks
    weights    ImageNet, sample, another run's or a file's weights, checked before they are loaded
    blocks     the blocks of a backbone, counted from the top, and its features
    cut        prefix | suffix, the freeze and its proof
    net        a whole model with the rows of its backbones: blocks, cut, base
    live       prefix and suffix in one training step
    tta        several views of an image, averaged inside the model
    bundle     model.keras with its class names and side

Models and photos do not know each other: nothing here imports `data`.
"""
