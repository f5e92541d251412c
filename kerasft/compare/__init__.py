"""All ways to use a pretrained net, tried on one set of photos.

A way is how a pretrained net is used: as it is, with a solved head ("svm"), with a trained head
("linear"), unfrozen ("unfreeze"), and so on. A trial is one way on one backbone with one split.

    ways        the table of ways: how each is configured, which learning rates it tries
    request     what is to be compared, checked and turned into the list of trials
    entry       what is recorded of a trial, and its JSON file
    trials      one trial: its ordinary runs, the choice among them, the measurement
    correction  accuracies without the luck of having been chosen on validation
    verdict     a row for each way, the winner, p-values, advice
    result      what a comparison returns, and the files that hold it
    compare     `compare_ways`: all of it, within a budget of time

Example:
    >>> from kerasft import compare_ways
    >>> result = compare_ways({"data.source": "photos"}, "compared", ways=["svm", "unfreeze"])
    >>> result.advice
"""
