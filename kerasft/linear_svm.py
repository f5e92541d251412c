"""A linear SVM whose classes are solved all at once, where there are many of them.

scikit-learn's LinearSVC hands class after class to liblinear, which goes through the features
entry by entry, each stored with its position: 1,600 x 2,048 features are 50 MB, and each of 100
classes reads them up to 140 times. Here SciPy minimises the same loss, and a step of it is two
products of matrices, for all classes.

Shapes: N images, F features, K classes.
"""

import warnings

import numpy as np
from scipy.optimize import minimize
from sklearn.exceptions import ConvergenceWarning
from sklearn.svm import LinearSVC
from sklearn.utils.class_weight import compute_class_weight

MANY = 10  # classes from which on all at once is faster
GRADIENT = 1e-6  # its largest entry in the end; liblinear with its own tolerance leaves more


class ManyClassSVC(LinearSVC):
    """LinearSVC: for a few classes as it is, for many the minimum of the same loss.

    Squared hinge loss, one class against the rest, the intercept regularised like a weight,
    "balanced" for a class's own images and not for the rest. `tol` and `random_state` mean nothing
    for many classes; decisions of liblinear, which stops at `tol`, are up to 1e-4 off.
    """

    def fit(self, X: np.ndarray, y: np.ndarray) -> "ManyClassSVC":
        classes, rows = np.unique(y, return_inverse=True)
        if len(classes) < MANY:
            return super().fit(X, y)
        weights = compute_class_weight(self.class_weight, classes=classes, y=y)
        x = np.hstack([X, np.ones((len(X), 1))])
        signs = np.where(rows[:, None] == np.arange(len(classes)), 1.0, -1.0)
        costs = self.C * np.where(signs > 0, weights, 1.0)

        def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
            w = flat.reshape(x.shape[1], -1)
            slack = np.maximum(0, 1 - signs * (x @ w))
            pull = costs * slack
            gradient = w - 2 * (x.T @ (signs * pull))
            return 0.5 * np.vdot(w, w) + np.vdot(pull, slack), gradient.ravel()

        found = minimize(
            loss,
            np.zeros(x.shape[1] * len(classes)),
            jac=True,
            method="L-BFGS-B",
            # 30 corrections: the loss is stiff, and a step costs more than remembering one.
            options={"gtol": GRADIENT, "ftol": 0, "maxiter": self.max_iter, "maxcor": 30},
        )
        if np.abs(found.jac).max() > GRADIENT and found.nit >= self.max_iter:
            warnings.warn(
                f"the classes were not solved in {found.nit} steps.",
                ConvergenceWarning,
                stacklevel=2,
            )
        kernel = found.x.reshape(x.shape[1], -1)
        self.classes_, self.n_features_in_, self.n_iter_ = classes, X.shape[1], found.nit
        self.coef_, self.intercept_ = np.ascontiguousarray(kernel[:-1].T), kernel[-1]
        return self
