"""The graph that formats other than SavedModel are made of: pixels in, scores out, no variables.

Shapes: B images in a batch, S side of the model's square input in pixels, K classes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kerasft.lazy_tensorflow import tf

if TYPE_CHECKING:
    from kerasft.models.bundle import Bundle

PIXELS, SCORES = "pixels", "scores"


def frozen_graph(opened: Bundle) -> Any:
    """Returns a model as one TensorFlow graph, its weights constants in it.

    Args:
        opened: model to convert.

    Returns:
        A GraphDef without functions and variables: the placeholder PIXELS, float32 [B,S,S,3], 0 to
        255, for any B, and the node SCORES, float32 [B,K].

    Source: Keras computes grouped convolutions, which ConvNeXt has, in a function of its own that
        only XLA may compile (`keras/src/backend/tensorflow/nn.py`), which tf2onnx does not know.
        While functions run eagerly, it is traced like any other operation.
    """
    # Imported here: importing it loads TensorFlow.
    from tensorflow.python.framework.convert_to_constants import (
        convert_variables_to_constants_v2,
    )

    size = opened.rule.image_size

    def scores(pixels: tf.Tensor) -> tf.Tensor:
        return tf.identity(opened.model(pixels, training=False), name=SCORES)

    signature = [tf.TensorSpec([None, size, size, 3], tf.float32, name=PIXELS)]
    eager = tf.config.functions_run_eagerly()
    tf.config.run_functions_eagerly(True)
    try:
        traced = tf.compat.v1.wrap_function(scores, signature)
    finally:
        tf.config.run_functions_eagerly(eager)
    return convert_variables_to_constants_v2(traced).graph.as_graph_def()
