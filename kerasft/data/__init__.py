"""Photos: found, checked, split, batched.

    scan        `scan_source`: the photos of a new run; `open_source`: those of an existing one
    source      Photo, Listing, Source: what the functions below hand on
    folders, tables, archives, tfds     the kinds of source
    checks      what stops or warns before training
    splits      stratified splits, groups kept together; splits.csv
    batches     photos in order, decoded, as tf.data pipelines

Shapes: pixels float32 [B,S,S,3], 0 to 255; labels int [N].
"""
