"""Checks of a set of photos before anything is trained: bad files, copies, doubtful labels.

    check       `check_photos` looks at all files, and finds what `train` would refuse
    copies      finds photos that show the same picture
    clean       writes a copy of the photos that can be used
    features    finds suspicious labels and outliers by the features of a frozen backbone

The photos are not changed: none is moved, deleted or relabelled.

Shapes: N photos, F features, K classes.
"""
