"""Fine-tunes image classifiers of Keras Applications.

One command trains a new head on a frozen, ImageNet-pretrained base; a second one unfreezes the top
blocks and continues at a low learning rate; a third one writes a SavedModel that takes image bytes
and returns labels. The command line is `kerasft`; a notebook calls the same functions. The seven in
`__all__` are the public API; everything below them may change in any release. Importing this
package loads neither Keras nor TensorFlow; the first call does.

Example:
    >>> import kerasft
    >>> config = kerasft.load_config(
    ...     flags={"data.source": "photos", "model.weights": "sample"}, sets=["phases.0.epochs=5"]
    ... )
    >>> result = kerasft.train_run(config, "runs/photos")
    >>> result = kerasft.continue_run("runs/photos", flags={"phases.-1.epochs": 2})
    >>> report = kerasft.evaluate_run("runs/photos", split="test")
    >>> report.split, report.n
    ('test', 6)
    >>> answers = kerasft.predict("runs/photos", ["photos/circle", "new.jpg"], top=1)
    >>> exported = kerasft.export_run("runs/photos", to="served")
    >>> exported.proof.top1_agreement
    1.0

    Fields of the config are named as in its TOML file: `flags` is a mapping from dotted names to
    values, `sets` a list of texts "name=value" whose values are TOML. A path is a str or a Path.
    To see which way of using a net suits the photos:

    >>> compared = kerasft.compare_ways(
    ...     {"data.source": "photos", "model.weights": "sample"}, "compared", ways=["knn", "lda"]
    ... )
    >>> advice = compared.advice

Packages; each imports only those below it, and its `__init__` describes its modules:

    cli           the command line: commands, and what they print
    compare       all ways to use a backbone, compared on one set of photos
    updating      a new run from one whose photos or classes have changed
    checking      photos checked before training: bad files, copies, doubtful labels
    serving       a server: two APIs for programs, and a page for people
    evaluation    predictions of a model on photos, and its figures
    export        model.keras in other formats, and the proof that each computes the same
    training      a run, from its config to model.keras
    reports       pages of results: HTML files that load nothing from elsewhere; runs listed
    activations   activations of the frozen prefix: computed once, kept on disk
    data          photos: read, checked, split, batched
    sources       where photos come from: folders, tables, archives, datasets
    pixels        one image: decoded, resized, augmented
    novelty       photos unlike those that a run was trained on
    models        Keras graphs: backbones, cuts, model.keras
    importers     weights of other tools, as files that Keras reads
    config        the config of a run: fields, TOML files, overrides, problems
    heads         heads: trained, or solved by scikit-learn
    backbones     the table of pretrained nets, and where their weights lie
    sample        drawn photos, to try everything without a download

    The modules beside the packages may be used by all of them and import none of them: errors,
    progress, seeds, text, files, untrusted, rows, processes, metrics, confidence, results,
    lazy_tensorflow, input_rule, devices, record, run, answers, trackers, cache, unpacked, plots.

Glossary:
    abstain: to say "I don't know" where the best score is below a threshold.
    activations: the numbers that a prefix computes from an image at the cut.
    backbone: a pretrained net without its classifier, such as MobileNetV2; "A+B" names two of them
        that work side by side.
    base: the layers of a model below its head; they come from a backbone.
    block: a group of neighbouring layers of a backbone that are frozen or trained together; blocks
        are counted from the top.
    bundle: a model.keras file in memory, with its class names, image size and resize rule.
    cut: the place that divides a model into a frozen prefix and a suffix that is trained.
    engine: the code that computes activations: a folded TensorFlow graph, or Keras.
    export: a model in a format for use elsewhere, in a folder with what it says about itself.
    features: the activations that enter the head.
    group: photos that must stay in one split, such as those of one animal.
    head: the layers that turn features into scores; they are trained, or solved.
    known photos: the training photos, by their features in the pretrained base; a photo's distance
        is 1 minus the cosine to the nearest of them.
    method: an algorithm that solves a head in one go, such as "svm", instead of training it.
    net: a neural network as a whole; `models.Net` is a model with what is known of its backbones.
    parity proof: the comparison of an export with model.keras, each in a fresh process.
    phase: one stage of a run, with a cut of its own, in which the suffix is trained or solved.
    plan: a config in which everything is settled that the user may leave open.
    prefix: the part of a model below the cut, from the pixels on; it is frozen.
    record: run.json: what a run used, and the results of its phases.
    review: new photos that were chosen for a person to label, as a table and a page.
    run: a directory with all about one training: config, splits, record, metrics, model.keras.
    shift: a difference between new photos, as a group, and the known photos.
    source: the place that photos come from: a folder, a table, an archive or a TensorFlow dataset.
    split: one of the three parts of the photos: train, validation or test.
    store: a file in the cache with the activations of one split, in one view, at one cut.
    suffix: the part of a model above the cut, up to the scores; it is trained or solved.
    sums: what a run keeps of its photos, by which classes are learned when the photos are gone.
    target: the model that evaluate, predict and explain are given: a run, a model file, or
        "imagenet:" and a name.
    temperature: the number that logits are divided by, so that scores mean what they say.
    trial: one way, tried by `compare` on one backbone with one split of the photos.
    update: a new run from an old one, on the photos and classes as they are now.
    view: one version of an image: the plain one, or one that a seed has augmented.
    way: a manner of using a pretrained net, such as "linear" or "unfreeze"; `compare` tries them.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kerasft.compare.compare import compare_ways
    from kerasft.config.load import load_config
    from kerasft.evaluation.evaluate import evaluate_run
    from kerasft.evaluation.predict import predict
    from kerasft.export.export import export_run
    from kerasft.training.train import continue_run, train_run

__version__ = "0.2.0"

__all__ = [
    "compare_ways",
    "continue_run",
    "evaluate_run",
    "export_run",
    "load_config",
    "predict",
    "train_run",
]

_MODULES = {
    "compare_ways": "compare.compare",
    "continue_run": "training.train",
    "evaluate_run": "evaluation.evaluate",
    "export_run": "export.export",
    "load_config": "config.load",
    "predict": "evaluation.predict",
    "train_run": "training.train",
}

if not TYPE_CHECKING:  # a type checker would take every name for one that exists

    def __getattr__(name: str) -> object:
        """Imports a function of the public API on first use."""
        if name not in _MODULES:
            raise AttributeError(f"module 'kerasft' has no attribute {name!r}")
        return getattr(import_module(f"kerasft.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    """Lists the public API, whether it is loaded or not."""
    return sorted([*globals(), *__all__])
