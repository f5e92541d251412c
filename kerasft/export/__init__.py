"""Exports of a run's model.keras for serving, with a proof that they compute the same.

    savedmodel    `export_run` writes a SavedModel for TF Serving: image bytes in, labels out
    parity        compares the export with model.keras, each in a fresh process

Shapes: serving takes string [N], encoded images; scores are float32 [N,K], K classes.
"""
