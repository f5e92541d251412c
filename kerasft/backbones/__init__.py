"""The pretrained nets that can be named, and where their weights lie. No Keras.

table              a row per net: image size, blocks, features
spec               how users write them: "MobileNet:alpha=0.75+VGG16"
compatibility      checks that weights and features fit a backbone
chains             AlexNet, CaffeNet and VGG layer by layer, for imports
imagenet_files     file names and folder of the published weights
imagenet_classes   ImageNet's 1000 labels, matched with class names
"""
