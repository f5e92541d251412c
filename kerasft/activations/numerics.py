"""The version of the code that computes stored activations, and the digests that guard it.

NUMERICS is part of every store's key (`keys.py`), so stores outlive releases and are no longer
found once the code computes different numbers. DIGESTS describes the code at the last decision
about NUMERICS. A test fails when the code has changed since; `scripts/numerics.py` then renews
the digests, with the same NUMERICS or the next one.
"""

NUMERICS = 3  # raise it when the same photo, view and weights give other activations

# Module -> digest of its syntax tree, without docstrings and annotations.
DIGESTS = {
    "activations.compiled": "f969de206650a4e2",
    "activations.engines": "8ac23d7b6d9d2b97",
    "activations.prefix_pass": "90cc71fff936f795",
    "activations.segments": "ef2eef298e2cc723",
    "activations.store": "bbd18f4c40bb52eb",
    "backbones.table": "848f64c242425eeb",
    "data.batches": "3509b06a3613a781",
    "heads.trained": "894092854f8deaa3",
    "models.alexnet": "597397ce40b76566",
    "models.blocks": "9f01785582d94b4d",
    "models.build": "ea27d83955cae870",
    "models.cut": "355d73718463360f",
    "models.fold": "57d98c6208991ef4",
    "models.live": "285f67865fc446a2",
    "input_rule": "9d8d993929544a48",
    "pixels.convert": "40ec4ad7c319b951",
    "pixels.augment": "89328ca99ddad693",
    "pixels.decode": "7b97faca8c88d2a5",
    "pixels.headers": "0b2b5e2138700fba",
    "pixels.images": "8f104f5efa6b68cd",
    "seeds": "ac856b5fa2647405",
}
