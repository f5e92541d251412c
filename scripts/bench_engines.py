"""The pass through the frozen part: kerasft's engines beside `model.predict`, on photos.

Every engine runs in a process of its own, takes the same files, and is timed twice: on pixels in
memory ("compute", the fastest of three rounds over at most 256 photos), and from files to
activations ("whole": building the engine and its graphs, decoding, computing), which is what a
person waits for. The error is the mean over the photos of the L2 norm of the difference to
`model.predict` in float32 over that of the activations.

    python scripts/bench_engines.py --data photos/ --backbone MobileNetV2 --views 4 --engines \\
        predict,folded-float32,folded-bfloat16

`train` computes four views of each photo, which it decodes once.

"openvino-float32" and "openvino-bfloat16" need the package openvino, which kerasft does not use:
this is where it was measured whether it should.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from bench_two_phase import command, machine

from kerasft.backbones.spec import parse

KNOWN = ("predict", "folded-float32", "folded-bfloat16", "openvino-float32", "openvino-bfloat16")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="photos, in any folders")
    parser.add_argument("--backbone", default="MobileNetV2")
    parser.add_argument("--weights", default="imagenet", help="or none: it costs the same")
    parser.add_argument("--engines", default=",".join(KNOWN[:3]), help=f"of {', '.join(KNOWN)}")
    parser.add_argument("--images", type=int, default=1274, help="at most so many")
    parser.add_argument("--views", type=int, default=1, help="of each photo, which is decoded once")
    parser.add_argument("--one", help="this engine, in this process")
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(arguments)))
        return
    names = arguments.engines.split(",")
    if unknown := sorted(set(names) - set(KNOWN)):
        parser.error(f"--engines: unknown {', '.join(unknown)}. Known are {', '.join(KNOWN)}.")
    print(json.dumps(machine()))
    for name in names:
        program = [sys.executable, __file__, "--one", name, "--data", str(arguments.data)]
        program += ["--backbone", arguments.backbone, "--weights", arguments.weights]
        program += ["--images", str(arguments.images), "--views", str(arguments.views)]
        row, _ = command(program, {})
        print(json.dumps(row), flush=True)


def measure(arguments: argparse.Namespace) -> dict:
    """Images/s of one engine, and its error. Computes here."""
    import keras

    from kerasft import devices
    from kerasft.activations.engines import BATCH, relative_error
    from kerasft.activations.keys import views_of
    from kerasft.config.load import load_config
    from kerasft.config.settled import rule_of
    from kerasft.data import scan
    from kerasft.data.batches import view_batches
    from kerasft.heads import trained
    from kerasft.models import build
    from kerasft.models.cut import split

    devices.prepare("cpu")
    backbone = parse(arguments.backbone)[0]
    side = backbone.image_size
    config = load_config(None, flags={"data.source": str(arguments.data)})
    source = scan.scan_source(config.data, seed=0)
    # Spread over all classes, whole batches.
    count = min(arguments.images, len(source.paths)) // BATCH * BATCH
    chosen = np.linspace(0, len(source.paths) - 1, count).astype(int).tolist()

    def batches_of(positions: list[int]) -> Iterable:
        return view_batches(
            source,
            positions,
            [views_of(arguments.views)] * len(positions),
            rule=rule_of(config.data, side),
            augment=config.augment,
            batch_size=BATCH,
        )

    base = build.load(arguments.backbone, weights=arguments.weights, image_size=side)
    model = trained.attach(base, 2, hidden=(), dropout=0.0, seed=0)
    cuts = [split(model, blocks, backbone).prefix for blocks in (0, backbone.default_blocks)]
    # What `train` computes in its pass: the features, and the cut of the unfreezing.
    prefix = keras.Model(model.inputs[0], [cut.outputs[0] for cut in cuts if cut is not None])

    began = time.perf_counter()
    images = count * arguments.views
    rows = compute_all(arguments.one, prefix, batches_of(chosen), images // BATCH)
    whole = time.perf_counter() - began

    pixels = [np.asarray(batch) for batch in batches_of(chosen[: 256 // arguments.views])]
    exact = prefix.predict(np.concatenate(pixels[:2]), batch_size=BATCH, verbose=0)
    run = engine(arguments.one, prefix)
    rounds = []
    for _ in range(4):
        began = time.perf_counter()
        for batch in pixels:
            run(batch)
        rounds.append(time.perf_counter() - began)
    errors = [relative_error(a, b[: len(a)]) for a, b in zip(exact, rows, strict=True)]
    return {
        "engine": arguments.one,
        "backbone": arguments.backbone,
        "images": images,
        "compute_images_per_second": round(BATCH * len(pixels) / min(rounds[1:]), 1),
        "whole_seconds": round(whole, 2),
        "whole_images_per_second": round(images / whole, 1),
        "error": max(errors),
    }


def compute_all(name: str, prefix: Any, batches: Iterable, steps: int) -> list[np.ndarray]:
    """All activations, as a person who uses the engine would compute them."""
    if name == "predict":
        return prefix.predict(iter(batches), steps=steps, verbose=0)
    run = engine(name, prefix)
    outputs = [run(np.asarray(batch)) for batch in batches]
    return [np.concatenate(parts) for parts in zip(*outputs, strict=True)]


def engine(name: str, prefix: Any) -> Callable[[np.ndarray], list[np.ndarray]]:
    """A function: pixels float32 [B,S,S,3] -> activations of both cuts."""
    if name == "predict":
        return lambda pixels: prefix.predict(pixels, batch_size=len(pixels), verbose=0)
    kind, precision = name.split("-")
    if kind == "openvino":
        return _openvino(prefix, "f32" if precision == "float32" else "bf16")
    from kerasft.activations import engines

    return engines.build(prefix, kind, precision)


def _openvino(prefix: Any, precision: str) -> Callable[[np.ndarray], list[np.ndarray]]:
    import os

    import openvino
    import tensorflow as tf

    spec = tf.TensorSpec([None, *prefix.input_shape[1:]], tf.float32)
    infer = tf.function(lambda pixels: prefix(pixels, training=False), autograph=False)
    converted = openvino.convert_model(infer.get_concrete_function(spec))
    options = {
        "INFERENCE_PRECISION_HINT": precision,
        "INFERENCE_NUM_THREADS": len(os.sched_getaffinity(0)),
    }
    # Of nets with swish the conversion makes outputs of many tensors within.
    results = converted.get_results()[: len(prefix.outputs)]
    converted = openvino.Model(results, converted.get_parameters())
    compiled = openvino.Core().compile_model(converted, "CPU", options)
    return lambda pixels: [np.array(output) for output in compiled(pixels).values()]


if __name__ == "__main__":
    main()
