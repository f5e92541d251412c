"""Which pretrained nets there are, and where their weights lie. No Keras.

table              a row per net: side, blocks, features
spec               how users write them: "MobileNet:alpha=0.75+VGG16"
compatibility      which weights and features go with a backbone
chains             AlexNet, CaffeNet and VGG layer by layer, for imports
imagenet_files     names and places of the published weights
imagenet_classes   ImageNet's 1000 labels, matched with class names
"""
