"""Checks of a set of photos before anything is trained: bad files, copies, doubtful labels.

    check       `check_photos` looks at all files, and finds what `train` would refuse
    copies      finds photos that show the same picture
    features    finds suspicious labels and outliers by the features of a frozen backbone

Nothing is changed: no photo is moved, deleted or relabelled.

Shapes: N photos, F features, K classes.
"""
