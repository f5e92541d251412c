"""What replaces the top of a backbone: trained, or solved by scikit-learn.

    trained     Dense layers and a softmax, to be trained
    methods     the table of methods that solve a head, without scikit-learn
    estimators  how each of them solves it
    solver      chooses a method's setting by cross-validation
    solved      a solution as numbers, and as stock Keras layers

Shapes: features float32 [N,F] to logits float32 [N,K], K classes.
"""
