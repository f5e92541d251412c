"""The pretrained nets that can be named, and where their weights lie. No Keras.

table              a row per net: image size, blocks, features
spec               how users write them: "MobileNet:alpha=0.75+VGG16"
compatibility      checks that weights and features fit a backbone
chains             AlexNet, CaffeNet and VGG layer by layer, for imports
imagenet_files     file names and folder of the published weights
imagenet_classes   ImageNet's 1000 labels with glosses, matched with class names

The nets are those of Keras Applications 3.15, and AlexNet and CaffeNet, which it lacks. Several
are joined by "+": each sees the same pixels, resized to its own side, and their features stand
side by side in front of the head. How to use it: `guide/backbones.md`.
"""
