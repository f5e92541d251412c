"""A server for a run or an export: two APIs for programs, and a page for people.

    serve            `serve_model` opens a model, listens, and works until it is stopped
    versions         the versions in a folder: found, loaded, tried out, swapped
    signatures       what a version computes: image files or pixels to rows of outputs
    batching         requests that wait, joined to batches for one worker thread
    limits           limits of all kinds: bodies and connections, kept within them
    rest             JSON of TensorFlow Serving: requests read, answers written
    app              the routes for programs: TensorFlow Serving's REST API, states, figures
    open_inference   the routes of the Open Inference Protocol, and its JSON
    page             the routes for people: `/`, its files, and what it asks for
    insight          what model.keras alone knows: heat map, unlike the training photos
    guard            what every request passes: host, token, headers, errors in words
    meters           figures for Prometheus

A request: uvicorn reads its head, `guard` admits it, `limits` reads its body, `rest` makes
items of it, `batching` computes them with the `signatures` of the version that `versions` serves,
`rest` writes the answer. The event loop never computes and never decodes.

Example:
    kerasft serve runs/photos
"""
