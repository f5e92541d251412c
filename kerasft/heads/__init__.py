"""Heads: the layers that replace the top of a backbone, trained or solved by scikit-learn.

    trained     a head to be trained: Dense layers and a softmax
    start       the weights that a trained head begins with: ridge logistic regression
    co_tuning   the pretrained classifier beside a new head
    methods     the table of methods that solve a head; it does not load scikit-learn
    estimators  the estimators that the methods fit
    solver      solves a head: chooses a method's setting by cross-validation and fits it
    solved      a solved head as numbers, and as stock Keras layers
    sums        sums.npz: a discriminant from sums, where photos are gone

Shapes: features float32 [N,F] to logits float32 [N,K], K classes.
"""
