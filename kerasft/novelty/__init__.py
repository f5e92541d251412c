"""Photos unlike all that a run was trained on, whatever their scores are.

    known    features of the training photos in the pretrained base, and the distance to them

A net gives every photo one of its classes, a shoe among flowers too. The features of the base *as
it was pretrained* tell them apart better than those of a net that was fine-tuned on a few classes
(`scripts/results/bench_confidence.md`). So a run keeps the pretrained features of its training
photos and, if a phase has trained blocks, these blocks as they were before: `known.keras`, beside
model.keras.

Shapes: N images, M known images, F features.
"""
