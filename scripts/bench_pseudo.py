"""Whether unlabelled photos help the second phase: pseudo-labels, and the same phase without them.

For each draw a third of the photos are the test; of the others 10 of each class are labelled and
the rest are not. Both arms start from a head that is solved on the labelled photos and train the
same top blocks (BatchNormalization frozen) for the same number of steps on stored activations, with
the same rate (4e-4, cosine), batches of 32 labelled photos in four views and L2-SP decay:

    without    the labelled photos alone
    pseudo     each step 64 unlabelled photos as well: an average of the weights over steps (EMA)
               scores their plain view; scores are corrected towards equal shares of the classes
               (ReMixMatch); where the best is above a threshold, which is lower for classes that
               are still learnt less (FlexMatch), it is the label of another view (FixMatch)

The weights are those of the average over steps in both arms; nothing chooses on the test photos.

    python scripts/bench_pseudo.py --data flowers5/ --draws 5

Sources: Sohn and others, FixMatch, NeurIPS 2020; Berthelot and others, ReMixMatch, ICLR 2020,
section 3.1; Zhang and others, FlexMatch, NeurIPS 2021, section 3.
"""

import argparse
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import tensorflow as tf
from bench_accuracy import interval
from bench_two_phase import machine

from kerasft.config.load import load_config
from kerasft.data.batches import view_batches
from kerasft.devices import prepare
from kerasft.heads.solved import Examples
from kerasft.heads.solver import solve
from kerasft.models import bundle
from kerasft.models.cut import with_features
from kerasft.progress import silent
from kerasft.training.train import plan_run

LABELLED = 10  # of each class
VIEWS = 4
RATE, DECAY = 4e-4, 0.99
BATCH, UNLABELLED = 32, 64


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", required=True, help="photos, a folder per class")
    parser.add_argument("--backbone", default="MobileNetV2")
    parser.add_argument("--blocks", type=int, default=3)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--threshold", type=float, default=0.9)
    parser.add_argument("--draws", type=int, default=5)
    arguments = parser.parse_args()
    prepare("cpu")
    flags = {"data.source": arguments.data, "model.backbone": arguments.backbone}
    plan = plan_run(load_config(None, flags=flags), progress=silent)
    cut = plan.net.cut(arguments.blocks)
    labels = np.asarray(plan.source.labels)
    batches = view_batches(
        plan.source,
        range(len(labels)),
        [[(view, 7919 * view) for view in range(VIEWS)]] * len(labels),
        rule=plan.plan.rule,
        augment=plan.plan.config.augment,
    )
    stored = np.asarray(bundle.compute(cut.prefix, batches))
    stored = stored.reshape(len(labels), VIEWS, *stored.shape[1:])
    model = with_features(plan.net.model, cut)
    for layer in model.layers:
        layer.trainable = not isinstance(layer, keras.layers.BatchNormalization)
    begin = model.get_weights()
    rows = []
    for seed in range(arguments.draws):
        rows.append(draw(model, begin, stored, labels, arguments, seed))
        print({name: round(value, 4) for name, value in rows[-1].items()}, flush=True)
    print(f"\n{machine()}\n\n| arm | test accuracy | beside without, points |\n| --- | --- | --- |")
    for arm in ("solved", "without", "pseudo"):
        apart = interval([100 * (row[arm] - row["without"]) for row in rows])
        print(f"| {arm} | {np.mean([row[arm] for row in rows]):.3f} | {apart} |")
    for name in ("share", "right"):
        print(f"{name}: {np.mean([row[name] for row in rows]):.2f}")


def draw(
    model: keras.Model,
    begin: list[np.ndarray],
    stored: np.ndarray,
    labels: np.ndarray,
    arguments: argparse.Namespace,
    seed: int,
) -> dict[str, float]:
    """Trains both arms on one draw; returns accuracies, and how good the pseudo-labels were."""
    order = np.random.default_rng(seed).permutation(len(labels))
    test, pool = order[: len(order) // 3], order[len(order) // 3 :]
    some = [pool[labels[pool] == k][:LABELLED] for k in range(labels.max() + 1)]
    labelled = np.concatenate(some)
    free = np.setdiff1d(pool, labelled)

    def outputs(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        parts = [model(stored[part, 0], training=False) for part in np.array_split(rows, 8)]
        logits, features = (np.concatenate([part[i] for part in parts]) for i in range(2))
        return logits, features

    def accuracy() -> float:
        return float((outputs(test)[0].argmax(1) == labels[test]).mean())

    found: dict[str, float] = {}
    for arm in ("without", "pseudo"):
        model.set_weights(begin)
        features = outputs(labelled)[1]
        train = Examples(features, labels[labelled])
        solved = solve("logistic", train, train, num_classes=len(some)).form
        head = model.get_layer("logits")
        mean, scale = solved.scaler or (0.0, 1.0)
        kernel = solved.kernel / np.reshape(scale, (-1, 1))
        head.set_weights([kernel, solved.bias - (mean / scale) @ solved.kernel])
        found["solved"] = accuracy()
        found |= train_arm(model, stored, labels, labelled, free, arguments, seed, arm == "pseudo")
        found[arm] = accuracy()
    return found


def train_arm(
    model: keras.Model,
    stored: np.ndarray,
    labels: np.ndarray,
    labelled: np.ndarray,
    free: np.ndarray,
    arguments: argparse.Namespace,
    seed: int,
    pseudo: bool,
) -> dict[str, float]:
    """Trains one arm, and leaves the average of its weights in the model."""
    numbers = np.random.default_rng(seed)
    classes = int(labels.max()) + 1
    weights = model.trainable_variables
    start = [tf.identity(v) for v in weights]
    average = [tf.Variable(v) for v in weights]
    optimizer = keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(RATE, arguments.steps))
    optimizer.build(weights)

    @tf.function(reduce_retracing=True)
    def step(x: tf.Tensor, y: tf.Tensor, w: tf.Tensor) -> None:
        with tf.GradientTape() as tape:
            logits = model(x, training=False)[0]
            losses = tf.nn.softmax_cross_entropy_with_logits(y, logits)
            labelled_loss = tf.reduce_mean(losses[:BATCH])
            other = tf.reduce_sum(w * losses[BATCH:]) / UNLABELLED if pseudo else 0.0
            near = tf.add_n([tf.nn.l2_loss(v - s) for v, s in zip(weights, start, strict=True)])
            loss = labelled_loss + other + 1e-2 * near
        optimizer.apply(tape.gradient(loss, weights), weights)
        for mean, v in zip(average, weights, strict=True):
            mean.assign(DECAY * mean + (1 - DECAY) * v)

    forward = tf.function(lambda x: tf.nn.softmax(model(x, training=False)[0]))

    def as_average(x: np.ndarray) -> np.ndarray:
        now = [tf.identity(v) for v in weights]
        for v, mean in zip(weights, average, strict=True):
            v.assign(mean)
        scores = forward(tf.constant(x)).numpy()
        for v, old in zip(weights, now, strict=True):
            v.assign(old)
        return scores

    shares = np.full(classes, 1 / classes)
    learnt = np.full(len(labels), -1)
    used = right = seen = 0
    for _ in range(arguments.steps):
        rows = numbers.choice(labelled, BATCH)
        x, y = stored[rows, numbers.integers(0, VIEWS, BATCH)], np.eye(classes)[labels[rows]]
        w = np.zeros(0)
        if pseudo:
            others = numbers.choice(free, UNLABELLED, replace=False)
            scores = as_average(stored[others, 0])
            shares = 0.95 * shares + 0.05 * scores.mean(0)
            scores = scores / shares
            scores /= scores.sum(1, keepdims=True)
            best = scores.argmax(1)
            sure = scores.max(1) > arguments.threshold
            learnt[others[sure]] = best[sure]
            counts = np.bincount(learnt[learnt >= 0], minlength=classes)
            beta = counts / max(counts.max(), (learnt[free] < 0).sum(), 1)
            w = (scores.max(1) > arguments.threshold * (beta / (2 - beta))[best]).astype(float)
            used += w.sum()
            seen += len(w)
            right += (w * (best == labels[others])).sum()
            strong = stored[others, numbers.integers(1, VIEWS, UNLABELLED)]
            x, y = np.concatenate([x, strong]), np.concatenate([y, np.eye(classes)[best]])
        step(tf.constant(x), tf.constant(y, tf.float32), tf.constant(w, tf.float32))
    for v, mean in zip(weights, average, strict=True):
        v.assign(mean)
    return {"share": used / seen, "right": right / max(1, used)} if pseudo else {}


if __name__ == "__main__":
    main()
