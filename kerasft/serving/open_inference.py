"""The routes of the Open Inference Protocol, version 2, which KServe, MLServer and Triton speak.

    POST /v2/models/NAME/infer
        {"id": "42", "inputs": [{"name": "image_bytes", "datatype": "BYTES", "shape": [1],
                                 "data": ["/9j/4AAQ..."]}], "outputs": [{"name": "top_label"}]}
        {"model_name": "NAME", "model_version": "1", "id": "42", "outputs": [
            {"name": "top_label", "datatype": "BYTES", "shape": [1], "data": ["bee"]}]}

A request has one of two inputs, which decides on the outputs: `image_bytes` BYTES [N] gives those
of serving_default, `pixels` FP32 [N,S,S,3] those of serve_pixels. Each output is a flat list.

JSON cannot hold the bytes of a file, so `image_bytes` are in base64, as MLServer has them with
"parameters": {"content_type": "base64"}; that parameter may be left out. MLServer's own client
sends the shape [N,1], which is taken too. The binary extension is not.

The protocol knows no error of a single item. Here the output `error`, BYTES [N], has it at its
position, "" for a right one, and the other outputs have zeros there. If an item is wrong, it is
sent even where it was not asked for; if all are, the request is refused.

Sources: specification/protocol/inference_rest.md and open_inference_rest.yaml of
kserve/open-inference-protocol; "Content types" in the documentation of MLServer.
"""

import functools
import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from kerasft import __version__
from kerasft.errors import did_you_mean
from kerasft.serving.app import Serving
from kerasft.serving.batching import Row
from kerasft.serving.limits import Limits
from kerasft.serving.rest import (
    columns_of,
    is_wrong,
    numbers_of,
    parse,
    pixel_reader,
    read_base64,
    require_a_right_one,
    require_few,
    shown,
    to_json,
    wrong,
)
from kerasft.serving.signatures import DEFAULT, ERROR, FILES, PIXELS, Model, Signature
from kerasft.serving.versions import Version

SIGNATURES = {FILES: DEFAULT, PIXELS: "serve_pixels"}
"""The signature that each input belongs to."""

DATATYPES = {"DT_STRING": "BYTES", "DT_FLOAT": "FP32", "DT_BOOL": "BOOL"}
PLATFORMS = {"SavedModel": "tensorflow_savedmodel", "ONNX": "onnx_onnxv1"}
"""The protocol's names of formats that it has one for; it is lower case in all others."""


def open_inference_routes(serving: Serving) -> list[Route]:
    """Makes the routes."""
    models = _Models(serving)
    routes = [
        Route("/v2", _server, name="v2"),
        Route("/v2/health/live", functools.partial(_health, serving, "live"), name="v2-live"),
        Route("/v2/health/ready", functools.partial(_health, serving, "ready"), name="v2-ready"),
    ]
    for path in ("/v2/models/{name}", "/v2/models/{name}/versions/{version}"):
        routes += [
            Route(path, models.metadata),
            Route(f"{path}/ready", models.ready),
            Route(f"{path}/infer", models.infer, methods=["POST"]),
        ]
    return routes


async def _server(request: Request) -> Response:
    request.scope["asked"] = "metadata"
    return JSONResponse({"name": "kerasft", "version": __version__, "extensions": []})


async def _health(serving: Serving, state: str, request: Request) -> Response:
    request.scope["asked"] = "health"
    serving.require_working()
    return JSONResponse({state: True})


class _Models:
    """The routes below /v2/models/."""

    def __init__(self, serving: Serving) -> None:
        self._serving = serving

    def _version(self, request: Request) -> Version:
        self._serving.require_name(request.path_params["name"])
        number = request.path_params.get("version")
        if number is not None and not re.fullmatch(r"[0-9]{1,18}", number):
            raise self._serving.no_version(number)
        return self._serving.version(None if number is None else int(number))

    async def metadata(self, request: Request) -> Response:
        """Describes the model."""
        request.scope["asked"] = "metadata"
        version = self._version(request)
        return JSONResponse(_metadata(self._serving.name, version))

    async def ready(self, request: Request) -> Response:
        """Tells that a version can be asked."""
        request.scope["asked"] = "ready"
        self._version(request)
        self._serving.require_working()
        return JSONResponse({"name": self._serving.name, "ready": True})

    async def infer(self, request: Request) -> Response:
        """Answers with the outputs for the images of a request."""
        request.scope["asked"] = "infer"
        serving, version = self._serving, self._version(request)
        if "inference-header-content-length" in request.headers:
            raise wrong("Binary tensors are not taken here. Send the tensors as JSON.")
        async with serving.bodies.read(request) as body:
            asked = await serving.in_reader(_read, body, version.model, serving.limits)
            rows = await serving.rows(request, asked.signature.compute, asked.items)
            written = await serving.in_reader(_answer, serving.name, version, asked, rows)
            return Response(written, media_type="application/json")


def _metadata(name: str, version: Version) -> Mapping[str, Any]:
    model = version.model
    tensors = [_tensors(model, takes) for takes in SIGNATURES]
    outputs = {one["name"]: one for _, gives in tensors for one in gives}
    return {
        "name": name,
        "versions": [str(version.number)],
        "platform": PLATFORMS.get(model.format, model.format.lower()),
        "inputs": [taken for taken, _ in tensors],
        "outputs": list(outputs.values()),
    }


def _tensors(model: Model, takes: str) -> tuple[Mapping[str, Any], Sequence[Mapping[str, Any]]]:
    """Describes an input, and the outputs that belong to it."""
    described = model.metadata["signature_def"]["signature_def"][SIGNATURES[takes]]
    errors = {"dtype": "DT_STRING", "tensor_shape": {"dim": [{"size": "-1"}]}}
    outputs = {ERROR: errors, **described["outputs"]}
    gives = [_tensor(name, outputs[name]) for name in _gives(model, takes)]
    return _tensor(takes, described["inputs"][takes]), gives


def _gives(model: Model, takes: str) -> Sequence[str]:
    """Lists the names of the outputs that belong to an input; the errors are always there."""
    return tuple(dict.fromkeys([*model.signatures[SIGNATURES[takes]].gives, ERROR]))


def _tensor(name: str, described: Mapping[str, Any]) -> Mapping[str, Any]:
    shape = [int(dim["size"]) for dim in described["tensor_shape"]["dim"]]
    return {"name": name, "datatype": DATATYPES[described["dtype"]], "shape": shape}


@dataclass(frozen=True, eq=False)
class _Asked:
    """A request, read.

    Attributes:
        signature: the signature that its input belongs to.
        items: what is computed, with its number of pixels; a row with the error for a wrong one.
        outputs: names of the outputs that are asked for.
        id: the request's own name; None if it has none.
    """

    signature: Signature
    items: Sequence[tuple[Any, int] | Row]
    outputs: Sequence[str]
    id: str | None


def _read(body: bytes, model: Model, limits: Limits) -> _Asked:
    """Reads the body of a request.

    Raises:
        HTTPException: 400, the request as a whole is wrong.
    """
    asked = parse(body)
    name_of_request = asked.get("id")
    if name_of_request is not None and not isinstance(name_of_request, str):
        raise wrong(f"id: expected a text, got {shown(name_of_request)}.")
    given = asked.get("inputs")
    if not isinstance(given, list) or len(given) != 1 or not isinstance(given[0], dict):
        got = f"a list of {len(given):,}" if isinstance(given, list) and given else shown(given)
        raise wrong(f"inputs: expected a list with one tensor, {FILES} or {PIXELS}, got {got}.")
    [tensor] = given
    takes = _known("inputs[0].name", tensor.get("name"), list(SIGNATURES))
    signature = model.signatures[SIGNATURES[takes]]
    read = _read_files if takes == FILES else _read_pixels
    items = read(tensor, signature.side, limits)
    return _Asked(signature, items, _read_outputs(asked, _gives(model, takes)), name_of_request)


def _known(where: str, given: Any, names: Sequence[str]) -> str:
    if isinstance(given, str) and given in names:
        return given
    near = did_you_mean(given, names) if isinstance(given, str) else ""
    raise wrong(f"{where}: expected one of {', '.join(names)}, got {shown(given)}.{near}")


def _require_datatype(tensor: Mapping[str, Any], expected: str) -> None:
    if tensor.get("datatype") != expected:
        raise wrong(
            f"inputs[0].datatype: expected {expected}, got {shown(tensor.get('datatype'))}."
        )


def _read_files(
    tensor: Mapping[str, Any], side: int, limits: Limits
) -> list[tuple[bytes, int] | Row]:
    _require_datatype(tensor, "BYTES")
    data = tensor.get("data")
    if not isinstance(data, list) or not data:
        raise wrong(f"inputs[0].data: expected a list of files in base64, got {shown(data)}.")
    require_few("inputs[0].data", len(data), limits)
    if tensor.get("shape") not in ([len(data)], [len(data), 1]):
        raise _wrong_shape(f"[{len(data)}], as there are so many in its data", tensor)
    return [_read_file(one) for one in data]


def _read_file(given: Any) -> tuple[bytes, int] | Row:
    if isinstance(given, list) and len(given) == 1:  # nested, in the shape [N,1]
        [given] = given
    if not isinstance(given, str):
        return {ERROR: f"Expected a file in base64, got {shown(given)}."}
    try:
        return read_base64(given)
    except ValueError as error:
        return {ERROR: str(error)}


def _read_pixels(
    tensor: Mapping[str, Any], side: int, limits: Limits
) -> list[tuple[np.ndarray, int] | Row]:
    _require_datatype(tensor, "FP32")
    shape = tensor.get("shape")
    square = [side, side, 3]
    if not isinstance(shape, list) or shape[1:] != square or type(shape[0]) is not int:
        raise _wrong_shape(f"[N, {side}, {side}, 3]", tensor)
    images = shape[0]
    if images < 1:
        raise _wrong_shape("one or more images", tensor)
    require_few("inputs[0].shape", images, limits)
    size = images * side * side * 3
    numbers = numbers_of(tensor.get("data"))
    if numbers is None or numbers.shape not in ((size,), (images, *square)):
        got = "something else" if numbers is None else f"numbers of shape {list(numbers.shape)}"
        raise wrong(
            f"inputs[0].data: expected {size:,} numbers, flat or in the shape "
            f"[{images}, {side}, {side}, 3], got {got}."
        )
    read_one = pixel_reader(side)
    items: list[tuple[np.ndarray, int] | Row] = []
    for pixels in numbers.reshape(images, *square):
        try:
            items.append(read_one(pixels))
        except ValueError as error:
            items.append({ERROR: str(error)})
    return items


def _wrong_shape(expected: str, tensor: Mapping[str, Any]) -> HTTPException:
    shape = tensor.get("shape")
    plain = isinstance(shape, list) and all(type(size) is int for size in shape)
    got = str(shape)[:60] if plain else shown(shape)
    return wrong(f"inputs[0].shape: expected {expected}, got {got}.")


def _read_outputs(asked: Mapping[str, Any], gives: Sequence[str]) -> Sequence[str]:
    given = asked.get("outputs")
    if given is None or given == []:
        return gives
    if not isinstance(given, list) or not all(isinstance(one, dict) for one in given):
        got = "a list of something else" if isinstance(given, list) else shown(given)
        raise wrong(f'outputs: expected a list such as [{{"name": "scores"}}], got {got}.')
    names = [_known(f"outputs[{i}].name", one.get("name"), gives) for i, one in enumerate(given)]
    return tuple(dict.fromkeys(names))


def _answer(name: str, version: Version, asked: _Asked, rows: Sequence[Row]) -> bytes:
    """Writes the answer.

    Raises:
        HTTPException: 400, all items are wrong.
    """
    takes = asked.signature.takes
    require_a_right_one(takes, rows)
    told = [ERROR] if any(map(is_wrong, rows)) else []
    columns = columns_of(rows, tuple(dict.fromkeys([*asked.outputs, *told])))
    datatypes = {one["name"]: one["datatype"] for one in _tensors(version.model, takes)[1]}
    return to_json(
        {
            "model_name": name,
            "model_version": str(version.number),
            **({} if asked.id is None else {"id": asked.id}),
            "outputs": [
                {"name": output, "datatype": datatypes[output], **_flat(column)}
                for output, column in columns.items()
            ],
        }
    )


def _flat(column: Sequence[Any]) -> Mapping[str, Any]:
    """Returns the shape and the flat data of a column of values, or of lists of them."""
    if not isinstance(column[0], list | tuple):
        return {"shape": [len(column)], "data": column}
    data = list(itertools.chain.from_iterable(column))
    return {"shape": [len(column), len(column[0])], "data": data}
