#!/bin/sh
# From nothing to a model in use, without a download but for .venv: draws flowers, trains a new
# head on the weights in the package, unfreezes, measures, exports, predicts with the export.
# A minute and a half at most on two cores, once .venv is made.
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
step kerasft sample-data quickstart/flowers --per-class 60 # of 100, to be quick
step kerasft train --data quickstart/flowers --weights sample --run quickstart/run
step kerasft unfreeze-and-continue quickstart/run --epochs 10 # of 20
step kerasft evaluate quickstart/run
step kerasft export quickstart/run
step kerasft predict quickstart/run/export/1 quickstart/flowers/daisy/daisy-0000.jpg

cat <<'END'

Made: quickstart/flowers         drawn flowers of five kinds, a folder for each
      quickstart/run             the run: model.keras, metrics.jsonl, splits.csv, config.toml
      quickstart/run/export/1    the SavedModel, for TF Serving or tf.saved_model.load

Now with your own photos, a folder per class, and ImageNet weights (a download of 9 MB):
  . .venv/bin/activate
  kerasft train --data PHOTOS/
END
