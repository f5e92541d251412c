"""Photos: read, checked, split, batched. Where they come from is in `sources`.

    scan        `scan_source` reads the photos of a new run, `open_source` those of an old run
    source      defines Source, photos with labels and splits
    files       reads and checks the files of photos, and finds them again
    facts       remembers the facts of files that have not changed since they were read
    checks      refuses photos that cannot be trained on, warns about doubtful ones
    near        finds near copies, altered copies of a photo, by their looks and names
    names       file names that say that one photo was made from another, or follows it
    near_splits keeps near copies together where splits are drawn, reports them elsewhere
    known       what runs know of photos: splits that are kept, labels that differ now
    splits      makes stratified splits that keep groups together; writes splits.csv
    batches     decodes photos in a given order: tf.data pipelines to train on, batches to score
    threads     reads many files at once and gives the results in order

Shapes: pixels float32 [B,S,S,3], 0 to 255; labels int [N].
"""
