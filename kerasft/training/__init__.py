"""A run, from its config to model.keras.

    train        `train_run`, `continue_run`, `plan_run`: the phases, one after the other
    plan         the config, with everything settled that it leaves open
    reopen       an existing run, opened again
    start        the net that a phase begins with
    phase        one phase: fills the suffix, proves the freeze, scores the model, keeps the best
    fill         the suffix: trained (`fit`) or with a solved head (package `heads`)
    trainable    a phase set up for training: cut, freeze, rate groups, optimizer, compiled model
    fit          the epochs, with a checkpoint after each
    feed         the training batches: order, views, mixing, targets
    rates        the optimizer, with a learning rate for each group of layers
    checkpoint   the state that a resumed phase needs
    find_lr      the learning-rate finder: a phase tried at rising rates

Shapes: pixels float32 [B,S,S,3], 0 to 255; activations at the cut [B, ...]; logits float32 [B,K].
"""
