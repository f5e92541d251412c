"""Fine-tunes image classifiers of Keras Applications.

One command trains a new softmax head on a frozen, ImageNet-pretrained base; a second one
unfreezes the top blocks and continues at a low learning rate; a third one writes a
SavedModel that takes image bytes and returns labels. The command line is `kerasft`; a
notebook calls the same functions, e.g. `kerasft.train.train_run(config, run_dir)`.
"""

__version__ = "0.1.0"
