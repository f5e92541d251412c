"""The table of methods that solve a head, the only list of them.

The config's field `method`, the help texts and the ways of `kerasft compare` derive from it. A new
method is a row here and an `estimators.Solver`. This module does not load scikit-learn: a row's
solver is loaded when a head is solved.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kerasft.heads.estimators import Solver

TRIES = 3
"""Number of settings that each method tries."""


@dataclass(frozen=True)
class Method:
    """One row of the table: a method that solves a head.

    Attributes:
        label: name of the method in help texts.
        solver: function that loads the method's solver.
        linear: whether the head is one Dense layer, which a later phase can train further.
        unbalanced: reason why the method ignores `class_weight`; "" if classes can be balanced.
    """

    label: str
    solver: Callable[[], "Solver"]
    linear: bool = False
    unbalanced: str = ""


def _estimators(name: str) -> Callable[[], "Solver"]:
    """Returns a function that loads a solver of `estimators.py`."""

    def load() -> "Solver":
        from kerasft.heads import estimators  # loads scikit-learn

        solver: Solver = getattr(estimators, name)
        return solver

    return load


# From the cheapest to the most expensive: `kerasft compare` prefers the first of equally good ones.
METHODS: dict[str, Method] = {
    "knn": Method(
        "nearest neighbours", _estimators("KNN"), unbalanced="all neighbours count equally"
    ),
    "bayes": Method("Gaussian naive Bayes", _estimators("BAYES")),
    "lda": Method("linear discriminant analysis", _estimators("LDA"), linear=True),
    "logistic": Method("logistic regression", _estimators("LOGISTIC"), linear=True),
    "svm": Method("a linear support vector machine", _estimators("SVM"), linear=True),
    "rbf-svm": Method("a support vector machine with an RBF kernel", _estimators("RBF_SVM")),
}


def linear_methods() -> list[str]:
    """Returns the methods whose heads a later phase can train further."""
    return [name for name, row in METHODS.items() if row.linear]
