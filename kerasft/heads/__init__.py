"""What replaces the top of a backbone: trained, or solved by scikit-learn.

    trained    Dense layers and a softmax, to be trained
    methods    the solvers: svm, rbf-svm, bayes, lda, logistic, knn
    solver     chooses a method's setting by cross-validation
    solved     a solution as numbers, and as stock Keras layers

Shapes: features float32 [N,F] to logits float32 [N,K], K classes.
"""
