"""A run's model.keras as a file for serving, with the proof that it computes the same.

    savedmodel    `export_run`: image bytes in, labels out, as TF Serving expects it
    parity        the same inputs through the export and model.keras, in fresh processes

Shapes: serving takes string [N], encoded images; scores are float32 [N,K], K classes.
"""
