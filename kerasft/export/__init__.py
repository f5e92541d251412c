"""Exports of a run's model.keras for serving, with a proof that they compute the same.

    export        `export_run` writes an export, and keeps it if the proof holds
    formats       the table of formats, without TensorFlow
    facts         kerasft.json: what an export says about its input and its scores; use/
    scorer        an opened export, the same for all formats
    savedmodel    the format for TF Serving: image bytes in, labels out
    litert        the format for phones and small computers: pixels in, scores out
    onnx_format   the format for ONNX Runtime, likewise
    openvino_format  the format for Intel's OpenVINO, likewise
    keras_format  the format for programs that go on with the model in Keras
    card          the model card beside an export
    parity        compares the export with model.keras, each in a fresh process
    measure       size, latency, and the accuracy that quantizing has lost

Shapes: serving takes string [N], encoded images; scores are float32 [N,K], K classes.
"""
