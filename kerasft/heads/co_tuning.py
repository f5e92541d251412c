"""Co-Tuning: the pretrained classifier stays beside the new head while a phase trains the base.

A new head forgets what the net knew of its 1,000 ImageNet classes. Each of our classes looks like a
few of them: that relation is read once, from the pretrained classifier's scores of the training
photos. While blocks are trained, the features have to go on telling those ImageNet classes too.
The classifier is gone in the model that is saved.

Source: You, Kou, Long, Wang 2020, "Co-Tuning for Transfer Learning", with the direct estimate of
    the relation (section 3.2), and the pretrained classifier held fixed.

Shapes: N training images, F features, K classes, S classes of the pretrained classifier.
"""

from typing import Any

import keras
import numpy as np
from keras import ops

_BETWEEN = (
    keras.layers.Dropout,
    keras.layers.Reshape,
    keras.layers.Flatten,
    keras.layers.Activation,
)  # layers that may lie between the pooled features and the classifier, or behind it


def classifier_of(pretrained: keras.Model) -> tuple[np.ndarray, np.ndarray] | None:
    """Returns the classifier of a pretrained net: its kernel [F,S] and biases [S].

    Args:
        pretrained: a net with its classifier, from `build.pretrained`.

    Returns:
        None if more than one layer with weights follows the pooling, as in VGG and MobileNetV3.
    """
    layers = [layer for layer in pretrained.layers if not isinstance(layer, keras.layers.Softmax)]
    classifier = None
    for layer in reversed(layers):
        if isinstance(layer, keras.layers.GlobalAveragePooling2D) and classifier is not None:
            kernel, bias = classifier.get_weights()
            return kernel.reshape(kernel.shape[-2:]), bias
        if isinstance(layer, keras.layers.Dense | keras.layers.Conv2D) and classifier is None:
            classifier = layer
        elif not isinstance(layer, _BETWEEN):
            return None
    return None


def relation(
    features: np.ndarray,
    labels: np.ndarray,
    kernel: np.ndarray,
    bias: np.ndarray,
    num_classes: int,
) -> np.ndarray:
    """Returns the mean scores of the pretrained classifier for each of our classes.

    Args:
        features: features of the training images' plain views, [N,F].
        labels: labels of the training images, int [N].
        kernel: the classifier's kernel, [F,S].
        bias: its biases, [S].
        num_classes: number of our classes, K.

    Returns:
        float32 [K,S]; each row sums to 1.
    """
    means = np.zeros((num_classes, len(bias)), np.float32)
    for label in np.unique(labels):
        logits = features[labels == label] @ kernel + bias
        scores = np.exp(logits - logits.max(axis=1, keepdims=True))
        means[label] = (scores / scores.sum(axis=1, keepdims=True)).mean(axis=0)
    return means


class CoTuning:
    """The pretrained classifier beside a new head, as `live.LiveModel` trains with it.

    Attributes:
        both: the suffix with two outputs, logits [B,K] and the features [B,F] that enter its head.
    """

    def __init__(
        self,
        both: keras.Model,
        classifier: tuple[np.ndarray, np.ndarray],
        related: np.ndarray,
        strength: float,
    ) -> None:
        """Makes the second loss of a phase.

        Args:
            both: the suffix with logits and features as outputs; its layers are the suffix's.
            classifier: kernel and biases, from `classifier_of`.
            related: ImageNet classes that go with each of ours, [K,S], from `relation`.
            strength: factor of the second loss, over 0.
        """
        self.both = both
        self._kernel, self._bias = classifier
        self._related, self._strength = related, strength

    def loss(self, features: Any, targets: Any, weights: Any | None) -> Any:
        """Returns what is added to the loss, a float32 scalar.

        Args:
            features: the features of the batch, [B,F].
            targets: shares of our classes, [B,K]; mixed ones where images are mixed.
            weights: weight of each image in the loss, [B]; None: no weights.
        """
        logits = ops.matmul(ops.cast(features, "float32"), self._kernel) + self._bias
        wanted = ops.matmul(ops.cast(targets, "float32"), self._related)
        each = -ops.sum(wanted * ops.log_softmax(logits, axis=-1), axis=-1)
        if weights is not None:
            each = each * ops.cast(ops.reshape(weights, (-1,)), "float32")
        return self._strength * ops.mean(each)
