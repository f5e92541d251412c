"""Photos: found, checked, split, batched.

    scan        `scan_source` reads the photos of a new run, `open_source` those of an old run
    source      defines Photo, Listing, PhotoFolder and Source, the types of the other modules
    layouts, tables, archives, tfds     find and list photos, one kind of source each
    folders      lists files below a folder, checks them, and finds them again
    checks      refuses photos that cannot be trained on, warns about doubtful ones
    known        what runs know of photos: splits that are kept, labels that differ now
    splits      makes stratified splits that keep groups together; writes splits.csv
    batches     decodes photos in a given order: tf.data pipelines to train on, batches to score
    threads     reads many files at once and gives the results in order

Shapes: pixels float32 [B,S,S,3], 0 to 255; labels int [N].
"""
