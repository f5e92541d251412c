"""Measures how many wrong labels `kerasft check` finds: some labels of good photos are changed.

    python scripts/bench_labels.py DATASETS/flowers5

The weights of MobileNetV2 lie in KERAS_HOME/models. Of the labels 5% become another class, by seed.
"""

import sys

import numpy as np
from cleanlab.rank import get_label_quality_scores

from kerasft.checking.features import features_of, out_of_fold_scores, suspects_of
from kerasft.config.load import load_config
from kerasft.progress import silent
from kerasft.training.train import plan_run

FLIPPED, WORST = 0.05, 0.1


def main() -> None:
    plan = plan_run(load_config(None, flags={"data.source": sys.argv[1]}))
    features, source = features_of(plan, silent), plan.source
    names, classes = list(source.paths), len(source.class_names)
    before, _ = suspects_of(features, source.labels, names, source.class_names)
    print(f"{len(names)} photos, {classes} classes; suspects before any change: {len(before)}")
    recalls = []
    for seed in range(5):
        random = np.random.default_rng(seed)
        labels = source.labels.copy()
        flipped = random.choice(len(labels), int(FLIPPED * len(labels)), replace=False)
        labels[flipped] = (labels[flipped] + random.integers(1, classes, len(flipped))) % classes
        quality = get_label_quality_scores(labels, out_of_fold_scores(features, labels))
        worst = np.argsort(quality, kind="stable")[: int(WORST * len(labels))]
        recalls.append(np.isin(flipped, worst).mean())
        listed = {one.path for one in suspects_of(features, labels, names, source.class_names)[0]}
        found = sum(names[photo] in listed for photo in flipped)
        print(
            f"seed {seed}: {len(flipped)} labels changed, {np.isin(flipped, worst).sum()} in the "
            f"worst 10% (recall {recalls[-1]:.3f}); {len(listed)} listed, {found} of them changed"
        )
    print(f"mean recall in the worst 10%: {np.mean(recalls):.3f}")


if __name__ == "__main__":
    main()
