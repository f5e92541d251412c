"""All ways to use a pretrained net, tried on one set of photos.

    ways      the table: how each way is configured, which learning rates it tries
    trials    one trial: a way, a backbone, a seed, trained as an ordinary run
    verdict   winner by validation, p-values, advice
    compare   `compare_ways`: all of it, within a budget of time

Example:
    >>> from kerasft import compare_ways
"""
