"""Photos before they are trained on: bad files, copies, doubtful labels, and missing ones.

    check       `check_photos` looks at all files, and finds what `train` would refuse
    copies      finds photos that show the same picture
    clean       writes a copy of the photos that can be used
    review      `review_run` chooses new photos for a person to label
    features    finds suspicious labels and outliers by the features of a frozen backbone

The photos are not changed: none is moved, deleted or relabelled.

Shapes: N photos, F features, K classes.
"""
