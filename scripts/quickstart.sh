#!/bin/sh
# From nothing to a model in use: makes .venv, draws some images, trains on them, unfreezes,
# measures, exports, predicts with the export. Two minutes on two cores, once .venv is made.
#
#     sh scripts/quickstart.sh
#
# All that it makes lies in quickstart/, which is made anew each time.
set -eu

cd "$(dirname "$0")/.."
sh scripts/venv.sh
PATH=$PWD/.venv/bin:$PATH

step() {
    echo
    echo "\$ $*"
    "$@"
}

rm -rf quickstart
step python scripts/draw_photos.py quickstart/photos
# From random weights, because these need no download: a new head on a frozen VGG16, small
# images, a high rate. With photos of your own leave all of that out: the ImageNet weights of
# MobileNetV2 are the default.
step kerasft train --data quickstart/photos --run quickstart/run \
    --backbone VGG16 --weights none --image-size 32 \
    --epochs 12 --learning-rate 0.02 --batch-size 16 --set phases.0.blocks=0
step kerasft unfreeze-and-continue quickstart/run --blocks 1 --epochs 4
step kerasft evaluate quickstart/run
step kerasft export quickstart/run
step kerasft predict quickstart/run/export/1 quickstart/photos/cross/cross-000.png

cat <<'END'

Made: quickstart/photos    120 drawn images, a folder per class
      quickstart/run       the run: model.keras, metrics.jsonl, splits.csv, config.toml
      quickstart/run/export/1    the SavedModel, for TF Serving or tf.saved_model.load

Now with your own photos, a folder per class:
  . .venv/bin/activate
  kerasft train --data PHOTOS/
END
