"""The format LiteRT, formerly TensorFlow Lite: pixels in, scores out, for phones and small boards.

Weights are float32, float16 or int8. int8 is full quantization: activations are int8 too, with
ranges that training photos have shown. Input and output stay float32, and so does the head, where
rounding would show most: of the 225 validation photos of flowers5, an int8 softmax gives 123
different scores. MobileNetV2 labels as many of them right in int8 (0.916) as in float32.

A LiteRT file is a flatbuffer, whose table "metadata" names some of its buffers: one is
kerasft.json. Labels follow the flatbuffer, in the zip of associated files that TFLite Metadata
defines: `unzip -l model.tflite` lists them, and the interpreter does not see them.

Shapes: B images in a batch, S side of the model's square input in pixels, K classes.
"""

from __future__ import annotations

import io
import os
import re
import threading
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kerasft.errors import UserError, first_line
from kerasft.export.facts import FILE as FACTS
from kerasft.export.facts import LABELS, ExportFacts, read_facts
from kerasft.export.scorer import Scorer, of_pixels
from kerasft.lazy_tensorflow import tf
from kerasft.processes import quiet

if TYPE_CHECKING:
    from kerasft.models.bundle import Bundle

FILE = "model.tflite"
ALIGNMENT = 16


def write(opened: Bundle, folder: Path, facts: ExportFacts, calibration: Path | None) -> None:
    """Writes `model.tflite`: `pixels` float32 [B,S,S,3] to `scores` float32 [B,K], for any B.

    Args:
        opened: model to export.
        folder: folder to write into.
        facts: facts of the export, which go into the file too; `quantize` chooses the weights.
        calibration: NumPy file of training photos, float32 [N,S,S,3], 0 to 255, for int8.

    Raises:
        UserError: LiteRT has no operation for a layer of the model, or int8 without photos.
    """
    if facts.quantize == "int8" and calibration is None:
        raise UserError(
            "int8 needs training photos, which show the range of each activation: got none.",
            field="quantize",
        )
    with quiet(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of TensorFlow's interpreter, which calibrates
        try:
            converted = _converted(opened, facts.quantize, calibration)
        except (ValueError, RuntimeError, _converter_error()) as error:
            raise UserError(f"LiteRT can't take this model: {_reason(error)}.") from error
    (folder / FILE).write_bytes(with_facts(converted, facts))


def _converted(opened: Bundle, quantize: str | None, calibration: Path | None) -> bytes:
    from kerasft.models.fold import without_antialias  # loads Keras

    size = opened.rule.image_size
    model = without_antialias(opened.model)

    @tf.function(input_signature=[tf.TensorSpec([None, size, size, 3], tf.float32, name="pixels")])
    def scores(pixels: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"scores": model(pixels, training=False)}

    # The converter takes the variables from here. From a Keras model it would find none and,
    # without an error, make a file whose weights are not set.
    module = tf.Module()
    module.weights = [variable.value for variable in model.variables]
    module.scores = scores
    traced = [scores.get_concrete_function()]
    converter = tf.lite.TFLiteConverter.from_concrete_functions(traced, module)
    if calibration is not None:
        return _to_int8(converter, np.load(calibration, mmap_mode="r"))
    if quantize == "float16":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.target_spec.supported_types = [tf.float16]
    converted: bytes = converter.convert()
    return converted


def _converter_error() -> type[Exception]:
    from tensorflow.lite.python.convert import ConverterError  # has no public name

    kind: type[Exception] = ConverterError
    return kind


def _reason(error: Exception) -> str:
    """Returns why a conversion failed, in one line."""
    missing = re.search(r"(?:TF Select|Custom|Flex) ops: (.+)", str(error))
    if missing:
        return f"it has no operation {missing[1].strip()}. Choose another format"
    return first_line(error)


def _to_int8(converter: Any, photos: np.ndarray) -> bytes:
    """Converts to int8, except for the head.

    The model is calibrated once: the debugger makes a quantized model again, with other options,
    from the ranges that it has seen.

    Source: "Inspecting Quantization Errors with Quantization Debugger", TensorFlow's guide.
    """

    def seen() -> Iterator[list[np.ndarray]]:
        for photo in photos:
            yield [photo[None]]

    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = seen
    lite = tf.lite.experimental
    debugger = lite.QuantizationDebugger(converter=converter, debug_dataset=seen)
    head = head_operations(debugger.calibrated_model)
    debugger.options = lite.QuantizationDebugOptions(denylisted_nodes=head)
    quantized: bytes = debugger.get_nondebug_quantized_model()
    return quantized


def head_operations(converted: bytes) -> list[str]:
    """Finds the operations of the head: those behind the last tensor with height and width.

    A layer with an activation, such as fc7 of VGG, is not of the head, nor is what it takes.

    Args:
        converted: contents of a LiteRT file with float operations.

    Returns:
        Names of their first outputs, by which the quantizer knows operations.
    """
    from ai_edge_litert import schema_py_generated as schema

    graph = schema.ModelT.InitFromPackedBuf(converted).subgraphs[0]
    makers = {output: operation for operation in graph.operators for output in operation.outputs}
    names: list[str] = []
    waiting = list(graph.outputs)
    while waiting:
        operation = makers.pop(waiting.pop(), None)
        if operation is None:  # a constant, or an operation that was here before
            continue
        shapes = [graph.tensors[i].shape for i in operation.inputs if i >= 0]
        if any(shape is not None and len(shape) > 3 for shape in shapes):
            continue
        if getattr(operation.builtinOptions, "fusedActivationFunction", 0):
            continue
        names.append(graph.tensors[operation.outputs[0]].name.decode())
        waiting += list(operation.inputs)
    return names


def with_facts(converted: bytes, facts: ExportFacts) -> bytes:
    """Adds kerasft.json and labels.txt to a LiteRT file.

    Args:
        converted: the file as TensorFlow's converter made it.
        facts: what the export says about itself.

    Returns:
        The file with the facts; the same arguments give the same bytes.

    Source: schema.fbs of TensorFlow Lite, which aligns buffers at 16 bytes, so that a runtime can
        compute with a mapped file (the Python code generated from it does not); "Adding metadata
        to TensorFlow Lite models", its guide.
    """
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    class Aligned(schema.BufferT):
        def Pack(self, builder: flatbuffers.Builder) -> int:
            if self.data is not None:
                builder.Prep(ALIGNMENT, len(self.data))
            offset: int = super().Pack(builder)
            return offset

    model = schema.ModelT.InitFromPackedBuf(converted)
    metadata, content = schema.MetadataT(), schema.BufferT()
    metadata.name, metadata.buffer = FACTS, len(model.buffers)
    content.data = np.frombuffer(facts.to_text().encode(), np.uint8)
    model.metadata = [*(model.metadata or []), metadata]
    model.buffers.append(content)
    for buffer in model.buffers:
        buffer.__class__ = Aligned
    builder = flatbuffers.Builder(len(converted) + ALIGNMENT * len(model.buffers))
    builder.Finish(model.Pack(builder), b"TFL3")
    written = io.BytesIO()
    written.write(builder.Output())
    with zipfile.ZipFile(written, "a") as archive:
        labels = "".join(f"{name}\n" for name in facts.class_names)
        archive.writestr(zipfile.ZipInfo(LABELS), labels)
    return written.getvalue()


def open_scorer(folder: Path) -> Scorer:
    """Opens `model.tflite` with LiteRT's interpreter, which computes on all processors.

    Raises:
        UserError: the file is damaged, or takes and gives something else.
    """
    from ai_edge_litert.interpreter import Interpreter

    facts = read_facts(folder)
    side, classes = facts.rule.image_size, len(facts.class_names)
    try:
        with quiet():  # of the kernels that it has chosen
            interpreter = Interpreter(model_path=str(folder / FILE), num_threads=_processors())
            interpreter.allocate_tensors()
        runner = interpreter.get_signature_runner()
        takes, gives = runner.get_input_details(), runner.get_output_details()
    except (ValueError, RuntimeError, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{folder / FILE}: is damaged, or no LiteRT model ({reason}).") from error
    shapes = [{name: x["shape"][1:].tolist() for name, x in end.items()} for end in (takes, gives)]
    expected = [{"pixels": [side, side, 3]}, {"scores": [classes]}]
    if shapes != expected:
        raise UserError(
            f"{folder / FILE}: is no LiteRT model of kerasft with the facts beside it. Expected "
            f"input and output {expected}, got {shapes}."
        )
    lock = threading.Lock()  # the interpreter has one set of tensors

    def compute(pixels: np.ndarray) -> np.ndarray:
        with lock:
            scores: np.ndarray = runner(pixels=pixels)["scores"]
        return scores

    return of_pixels(compute, facts)


def _processors() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
