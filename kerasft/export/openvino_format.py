"""The format OpenVINO: pixels in, scores out, for Intel's runtime.

OpenVINO computes in bfloat16, unasked, on CPUs that have it: on a CPU with avx512_bf16, scores of
MobileNetV2 on flowers5 are off by up to 0.18 then, and by 3e-6 in float32, which `open_scorer` asks
for. It reports each import to Intel; here it is imported without its telemetry.

Shapes: S side of the model's square input in pixels, K classes.
"""

from __future__ import annotations

import sys
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kerasft.errors import UserError, first_line
from kerasft.export.facts import FILE, ExportFacts, read_facts
from kerasft.export.scorer import DAMAGED, Scorer, of_pixels

if TYPE_CHECKING:
    from kerasft.models.bundle import Bundle

MODEL = "model.xml"
WEIGHTS = "model.bin"
TELEMETRY = "openvino_telemetry"


def import_openvino() -> Any:
    """Imports OpenVINO without the package that tells Intel of it.

    Source: `openvino/tools/ovc/telemetry_utils.py` does without that package if it is absent. A
        program that has imported OpenVINO before has decided for itself.
    """
    if "openvino" in sys.modules or TELEMETRY in sys.modules:
        import openvino
    else:
        sys.modules[TELEMETRY] = None  # type: ignore[assignment] # Python's mark of "absent"
        try:
            import openvino
        finally:
            del sys.modules[TELEMETRY]
    return openvino


def write(opened: Bundle, folder: Path, facts: ExportFacts, calibration: Path | None) -> None:
    """Writes MODEL and WEIGHTS: pixels float32 [?,S,S,3], 0 to 255, to scores float32 [?,K].

    The text of `facts` is in its `rt_info`, under "kerasft" and FILE. In float16, weights take half
    the space and are computed with in float32.

    Args:
        opened: model to export.
        folder: folder to write to.
        facts: what the export says about itself.
        calibration: None, because there is no int8.
    """
    openvino = import_openvino()

    # Imported here, so that the process that opens an export loads no TensorFlow.
    from kerasft.models.fold import PIXELS, SCORES, frozen_graph

    with tempfile.TemporaryDirectory() as name:
        # Not openvino.convert_model, which needs variables that Keras 3 saves in another way.
        graph = Path(name) / "graph.pb"
        graph.write_bytes(frozen_graph(opened.model).SerializeToString())
        try:
            model = openvino.Core().read_model(graph)
        except RuntimeError as error:
            raise UserError(
                f"The model can't be written for OpenVINO: {first_line(error)}. The formats "
                "saved-model and litert have more operations."
            ) from error
        model.input(0).get_tensor().set_names({PIXELS})
        model.output(0).get_tensor().set_names({SCORES})
        model.set_rt_info(facts.to_text(), ["kerasft", FILE])
        half = facts.quantize == "float16"
        try:
            openvino.save_model(model, folder / MODEL, compress_to_fp16=half)
        except RuntimeError as error:  # "iostream error", without a reason
            raise OSError("OpenVINO can't write its file; the disk may be full") from error


def open_scorer(folder: Path) -> Scorer:
    """Opens an export of `write` with OpenVINO alone.

    Raises:
        UserError: a file that is damaged or absent, or has other inputs and outputs.
    """
    openvino = import_openvino()
    facts = read_facts(folder)
    path = folder / MODEL
    try:
        core = openvino.Core()
        model = core.read_model(path)
        compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    except RuntimeError as error:
        raise UserError(
            f"{path}: can't be loaded, or {WEIGHTS} beside it: {first_line(error)}. {DAMAGED}"
        ) from error
    side = facts.rule.image_size
    takes, gives = ([_described(port) for port in ports] for ports in (model.inputs, model.outputs))
    expected = [f"pixels [?,{side},{side},3]"], [f"scores [?,{len(facts.class_names)}]"]
    if (takes, gives) != expected:
        raise UserError(
            f"{path}: is not the model of its {FILE}. Expected {expected[0]} to {expected[1]}, "
            f"got {takes} to {gives}."
        )

    lock = threading.Lock()  # the compiled model has one set of tensors

    def compute(pixels: np.ndarray) -> np.ndarray:
        with lock:
            scores: np.ndarray = compiled(pixels)["scores"]
        return scores

    return of_pixels(compute, facts)


def _described(port: Any) -> str:
    return f"{'/'.join(sorted(port.get_names()))} {port.get_partial_shape()}"
