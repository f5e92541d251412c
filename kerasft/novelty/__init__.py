"""New photos beside those that a run was trained on: which are unlike them, singly or as a group.

    known       features of the training photos in the pretrained base, and the distance to them
    shift       whether new photos differ from them as a group, and in what
    class_mix   classes of new photos by the known ones, and the shares of the classes
    choice      which new photos are worth a person's minute, to be labelled
    two_sample  tests of two samples of features (MMD) and of two samples of counts

A net gives every photo one of its classes, a shoe among flowers too. The features of the base *as
it was pretrained* tell them apart better than those of a net that was fine-tuned on a few classes
(`scripts/results/bench_confidence.md`). So a run keeps the pretrained features of its training
photos and, if a phase has trained blocks, these blocks as they were before: `known.keras`, beside
model.keras.

Shapes: N images, M known images, F features.
"""
