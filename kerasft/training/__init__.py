"""A run, from its config to model.keras.

    train        `train_run`, `continue_run`: the phases, one after the other
    plan         settles what the config leaves open, before the first number depends on it
    reopen       an existing run, opened again
    start        the net that a phase begins with
    phase        one phase: filled, proven, scored, judged
    fill         what is above the cut: trained (fit) or solved (heads)
    trainable    a phase set up: cut, frozen, grouped, with its optimizer and compiled model
    fit          epochs; feed, rates and checkpoint serve it
    find_lr      the same phase, tried at rising learning rates

Shapes: pixels float32 [B,S,S,3], 0 to 255; activations at the cut [B, ...]; logits float32 [B,K].
"""
