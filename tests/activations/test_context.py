import numpy as np

from kerasft.activations.context import RunContext
from kerasft.config.load import load_config
from kerasft.config.settled import Plan
from kerasft.data.scan import scan_source
from kerasft.progress import silent
from kerasft.run import Run


def test_batches_and_labels_of_a_split_are_in_the_same_order(photos, tmp_path):
    flags = {"data.source": str(photos), "model.image_size": 8}
    config = load_config(None, flags=flags)
    plan = Plan(
        config, image_size=8, views=1, engine="keras", precision="float32", batch=32, phases=()
    )
    context = RunContext(Run(tmp_path), plan, scan_source(config.data, seed=0), silent, {})
    labels = context.labels("validation")
    np.testing.assert_array_equal(labels, [0, 0, 1, 1, 2, 2])
    batches = context.batches("validation")
    (once,), (again,) = batches, batches
    assert once.shape == (6, 8, 8, 3)
    np.testing.assert_array_equal(again, once)
