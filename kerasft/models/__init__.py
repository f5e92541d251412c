"""Models: Keras graphs of backbones, their cuts, and model.keras.

    build      a backbone with its preprocessing inside: pixels [B,S,S,3] to features [B,F]
    alexnet    AlexNet and CaffeNet, which Keras Applications lacks
    weights    weights from ImageNet or a file, checked before they are loaded
    blocks     the blocks of a backbone, counted from the top, and its features
    cut        a model cut into prefix and suffix, the freeze and its proof
    net        a whole model with its backbones' rows of the table: blocks, cut, base
    fold       a copy for inference: normalisations folded into the convolutions in front of them
    live       the model that is fitted: the suffix, or prefix and suffix
    wise       weights between the start of a phase and its best epoch
    tta        what a finished model adds: views of an image, a temperature, sums of classes
    bundle     model.keras with its class names, image size and resize rule
    target     opens the model that a user names: a run, a model file, or a pretrained net

Models do not depend on photos: nothing here imports `data`.
"""
