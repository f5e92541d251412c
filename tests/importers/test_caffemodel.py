"""Caffe's weights: both formats are read as they were written, lying files are refused."""

import gc
import tracemalloc
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
from caffe_files import (
    CAFFENET_DEPLOY,
    floats,
    number,
    part,
    refusal,
    tag,
    text,
    varint,
    write_caffemodel,
    write_mean,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kerasft.errors import UserError
from kerasft.importers.caffemodel import Blob, open_caffemodel, read_mean

QUICK = settings(
    deadline=None, max_examples=150, suppress_health_check=list(HealthCheck), derandomize=True
)
KERNEL = np.arange(2 * 3 * 2 * 2, dtype="float32").reshape(2, 3, 2, 2) - 5.5
BIAS = np.float32([0.25, -7.0])
MATRIX = np.linspace(-1, 1, 8, dtype="float32").reshape(4, 2)
LAYERS = [
    ("conv1", "Convolution", [KERNEL, BIAS]),
    ("relu1", "ReLU", []),
    ("fc", "InnerProduct", [MATRIX]),
]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "net.caffemodel"


def opened(path: Path, content: bytes) -> dict[str, list[Blob]]:
    """Reads the layers of a file and copies them, so that they outlive it."""
    path.write_bytes(content)
    with open_caffemodel(path) as layers:
        return {
            name: [Blob(blob.shape, blob.data.copy()) for blob in blobs]
            for name, blobs in layers.items()
        }


def only_blob(path, blob: bytes) -> Blob:
    """Writes a file of one layer, "fc", with one blob."""
    return opened(path, part(100, text(1, "fc") + part(7, blob)))["fc"][0]


def message_of(path, content):
    return refusal(opened, path, content, most=1_200)


def shape(*sides: int) -> bytes:
    return part(7, part(1, b"".join(map(varint, sides))))


@pytest.mark.parametrize("version", ["v1", "v2"])
@pytest.mark.parametrize("legacy", [False, True])
def test_layers_with_weights_are_read_in_the_order_of_the_file(path, version, legacy):
    write_caffemodel(path, LAYERS, version=version, legacy=legacy)
    with open_caffemodel(path) as layers:
        assert list(layers) == ["conv1", "relu1", "fc"]
        kernel, bias = layers["conv1"]
        (matrix,) = layers["fc"]
        assert kernel.shape == kernel.squeezed == (2, 3, 2, 2)
        assert bias.shape == ((1, 1, 1, 2) if legacy else (2,))
        assert matrix.shape == ((1, 1, 4, 2) if legacy else (4, 2))
        assert (bias.squeezed, matrix.squeezed) == ((2,), (4, 2))
        for blob, array in ((kernel, KERNEL), (bias, BIAS), (matrix, MATRIX)):
            assert blob.data.dtype == np.float32
            np.testing.assert_array_equal(blob.data, array.reshape(-1))


@pytest.mark.parametrize(
    ("sides", "expected"),
    [((1, 1, 1, 1), (1,)), ((1, 3, 1, 1), (3, 1, 1)), ((), ()), ((1,), (1,)), ((5, 1), (5, 1))],
)
def test_squeezed_keeps_at_least_one_side(sides, expected):
    assert Blob(sides, np.ones(1)).squeezed == expected


def test_values_of_double_precision_stay_what_they_are(path):
    write_caffemodel(path, [("fc", "InnerProduct", [np.array([1 / 3, 1e300])])])
    with open_caffemodel(path) as layers:
        assert layers["fc"][0].data.dtype == np.float64
        assert layers["fc"][0].data.tolist() == [1 / 3, 1e300]


def test_opencv_reads_the_same_values(tmp_path, path):
    cv2 = pytest.importorskip("cv2")
    write_caffemodel(path, LAYERS)
    net = (
        'input: "data" input_shape { dim: 1 dim: 3 dim: 3 dim: 2 }\n'
        'layer { name: "conv1" type: "Convolution" bottom: "data" top: "conv1"\n'
        "  convolution_param { num_output: 2 kernel_size: 2 } }\n"
        'layer { name: "relu1" type: "ReLU" bottom: "conv1" top: "conv1" }\n'
        'layer { name: "fc" type: "InnerProduct" bottom: "conv1" top: "fc"\n'
        "  inner_product_param { num_output: 2 bias_term: false } }\n"
    )
    (tmp_path / "net.prototxt").write_text(net)
    other = cv2.dnn.readNetFromCaffe(str(tmp_path / "net.prototxt"), str(path))
    with open_caffemodel(path) as layers:
        for name, position in (("conv1", 0), ("conv1", 1), ("fc", 0)):
            theirs = other.getParam(other.getLayerId(name), position)
            np.testing.assert_array_equal(layers[name][position].data, theirs.reshape(-1))


def test_values_lie_in_the_file_until_somebody_looks_at_them(path):
    big = np.ones(5_000_000, "float32")
    write_caffemodel(path, [("fc", "InnerProduct", [big]), ("fc2", "InnerProduct", [big])])
    del big
    tracemalloc.start()
    try:
        with open_caffemodel(path) as layers:
            assert layers["fc2"][0].data[-1] == 1
            assert layers["fc"][0].data[:1000].sum() == 1000
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 3_000_000  # of 40,000,000


def test_a_view_outlives_the_file_and_can_not_be_written(path):
    write_caffemodel(path, LAYERS)
    with open_caffemodel(path) as layers:
        kept = layers["conv1"][0].data
    assert layers == {}
    gc.collect()
    np.testing.assert_array_equal(kept, KERNEL.reshape(-1))
    with pytest.raises(ValueError, match="read-only"):
        kept[0] = 1


def test_an_error_of_the_caller_comes_through(path):
    write_caffemodel(path, LAYERS)
    with pytest.raises(OSError, match="no room"), open_caffemodel(path):
        raise OSError("no room")


def test_values_in_several_pieces_are_joined(path):
    one, two = part(5, floats(1, 2)), part(5, floats(3, 4, 5))
    blob = only_blob(path, one + part(5, b"") + shape(5) + two)
    assert blob.data.tolist() == [1, 2, 3, 4, 5]


def test_values_that_are_not_packed_are_read(path):
    single = b"".join(tag(5, 5) + floats(value) for value in (1, 2, 3))
    assert only_blob(path, shape(3) + single).data.tolist() == [1, 2, 3]
    mixed = single + part(5, floats(4)) + single
    assert only_blob(path, shape(7) + mixed).data.tolist() == [1, 2, 3, 4, 1, 2, 3]


def test_a_shape_that_is_not_packed_is_read(path):
    blob = only_blob(path, part(7, number(1, 2) + number(1, 3)) + part(5, floats(*range(6))))
    assert blob.shape == (2, 3)


def test_legacy_sides_come_before_a_shape_as_for_caffe(path):
    sides = b"".join(number(field, side) for field, side in ((1, 1), (2, 1), (3, 2), (4, 2)))
    assert only_blob(path, shape(4) + sides + part(5, floats(*range(4)))).shape == (1, 1, 2, 2)


def test_gradients_and_fields_that_nobody_needs_are_passed_over(path):
    blob = shape(1) + part(5, floats(3)) + part(6, floats(9, 9)) + part(9, b"") + number(50, 1)
    layer = text(1, "fc") + text(2, "InnerProduct") + number(10, 1) + part(106, b"???")
    content = text(1, "net") + text(3, "data") + part(100, layer + part(7, blob)) + number(7, 1)
    assert opened(path, content)["fc"][0].data.tolist() == [3]


def test_a_name_behind_the_blobs_is_found(path):
    content = part(100, part(7, shape(1) + part(5, floats(3))) + text(1, "late"))
    assert list(opened(path, content)) == ["late"]


def test_of_two_layers_with_one_name_the_one_with_weights_is_read(path):
    write_caffemodel(path, [("a", "Data", []), ("a", "Convolution", [BIAS]), ("a", "Data", [])])
    with open_caffemodel(path) as layers:
        assert layers["a"][0].data.tolist() == [0.25, -7.0]


def test_two_layers_with_weights_and_one_name_are_refused(path):
    write_caffemodel(path, [("a", "Convolution", [BIAS]), ("a", "Convolution", [BIAS])])
    assert message_of(path, path.read_bytes()).startswith(
        "two layers with the name 'a' hold weights, the second at byte 43."
    )


def test_a_mean_is_read_into_memory(tmp_path):
    path = write_mean(tmp_path / "mean.binaryproto", KERNEL)
    mean = read_mean(path)
    path.unlink()
    assert mean.shape == (2, 3, 2, 2)
    np.testing.assert_array_equal(mean.data, KERNEL.reshape(-1))
    mean.data[0] = 1  # it is the caller's


def test_a_mean_of_three_sides_gets_the_legacy_four(tmp_path):
    path = write_mean(tmp_path / "mean.binaryproto", KERNEL[0])
    assert read_mean(path).shape == (1, 3, 2, 2)
    assert read_mean(path).squeezed == (3, 2, 2)


def test_a_caffemodel_is_no_mean_and_a_mean_no_caffemodel(path, tmp_path):
    write_caffemodel(path, LAYERS)
    with pytest.raises(UserError, match="not a mean file: at byte 0 field 1 is not what Caffe"):
        read_mean(path)
    content = write_mean(tmp_path / "mean.binaryproto", KERNEL).read_bytes()
    assert message_of(path, content).startswith(
        "is damaged, or not a caffemodel: at byte 0 field 1 is not what Caffe writes there."
    )


def test_a_mean_larger_than_64_mb_is_refused(path):
    with path.open("wb") as file:
        file.write(b"\x01")
        file.truncate(100_000_000)
    with pytest.raises(UserError, match=r"is larger than 64 MB. Expected a mean file"):
        read_mean(path)


@pytest.mark.parametrize("read", [open_caffemodel, read_mean])
def test_a_missing_file_is_the_fault_of_the_command(tmp_path, read):
    for missing in (tmp_path / "no.caffemodel", tmp_path):
        with pytest.raises(UserError, match="no such file") as error:
            read(missing).__enter__()  # read_mean does not come that far
        assert error.value.exit_code == 2


@pytest.mark.parametrize("read", [open_caffemodel, read_mean])
def test_text_where_binary_belongs_is_refused(path, read):
    path.write_text(CAFFENET_DEPLOY)
    with pytest.raises(UserError, match=r"is text, not a .*: it looks like a prototxt") as error:
        read(path).__enter__()  # read_mean does not come that far
    assert ("PROTOTXT CAFFEMODEL" in str(error.value)) == (read is open_caffemodel)


def test_an_empty_file_is_refused(path):
    assert message_of(path, b"") == "is empty. Expected a caffemodel of Caffe."


def test_files_of_other_formats_are_called_by_their_name(path, tmp_path):
    with h5py.File(path, "w") as file:
        file["x"] = 1
    hdf5 = path.read_bytes()
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x", b"1")
    zipped = path.read_bytes()
    header = b'{"x":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}  '
    safetensors = len(header).to_bytes(8, "little") + header + floats(1)
    for content, what in (
        (hdf5, "an HDF5 file"),
        (zipped, "a zip file"),
        (safetensors, "a safetensors file"),
        (b"\x1f\x8b\x08\x00", "packed with gzip"),
    ):
        assert message_of(path, content) == (
            f"is {what}, not a caffemodel. Expected a caffemodel of Caffe."
        )


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (text(1, "a net\0"), "holds no weights."),
        (part(100, text(1, "fc")), "holds no weights."),
        (
            part(2, part(1, text(1, "conv1")) + text(2, "data")),
            "holds layers of V0, Caffe's format before 2014 (byte 2). Convert it with Caffe's "
            "upgrade_net_proto_binary.",
        ),
        (
            part(100, part(7, shape(1) + number(10, 1) + part(12, b"ab"))),
            "layer '', blob 0: is raw data, which only NVIDIA's Caffe writes (byte 10).",
        ),
        (
            part(100, text(1, "fc") + part(7, shape(1) + part(12, b"ab"))),
            "layer 'fc', blob 0: is raw data, which only NVIDIA's Caffe writes (byte 14).",
        ),
        (
            part(100, text(1, "fc") + part(7, shape(2, 3) + part(5, floats(1, 2)))),
            "layer 'fc', blob 0: has 2 values, expected as many as its shape (2, 3) has (byte 9).",
        ),
        (
            part(100, text(1, "fc") + part(7, shape(0) + part(5, b""))),
            "layer 'fc', blob 0: has 0 values, expected as many as its shape (0,) has (byte 9).",
        ),
        (
            part(100, text(1, "fc") + part(7, shape(2**62, 4) + part(5, b""))),
            "layer 'fc', blob 0: has 0 values, expected as many as its shape",
        ),
        (
            part(100, text(1, "fc") + part(7, shape(2**64 - 1) + part(5, floats(1)))),
            "layer 'fc', blob 0: has 1 values, expected as many as its shape",
        ),
        (
            part(100, text(1, "fc") + part(7, number(1, 2) + part(5, floats(1, 2)))),
            "layer 'fc', blob 0: has 2 values, expected as many as its shape (2, 0, 0, 0) has",
        ),
        (part(100, text(1, "fc") + part(7, shape(1))), "layer 'fc', blob 0: holds no values."),
        (
            part(100, text(1, "fc") + part(7, shape(2) + part(5, floats(1)) + part(8, bytes(8)))),
            "layer 'fc', blob 0: holds values of 32 and of 64 bits.",
        ),
        (
            part(100, text(1, "n" * 1_001)),
            "is damaged, or not a caffemodel: at byte 4 a layer's name has more than 1,000 bytes.",
        ),
        (
            part(100, part(7, shape(*33 * [1]) + part(5, floats(1)))),
            "is damaged, or not a caffemodel: at byte 5 a blob has more than 32 axes.",
        ),
        (
            part(100, part(7, part(7, 40 * number(1, 1)) + part(5, floats(1)))),
            "is damaged, or not a caffemodel: at byte 5 a blob has more than 32 axes.",
        ),
        (
            part(100, 101 * part(7, b"")),
            "is damaged, or not a caffemodel: at byte 204 a layer's blobs become more than 100.",
        ),
        (
            part(100, part(7, 1_001 * part(5, floats(1)))),
            "is damaged, or not a caffemodel: at byte 6,007 a blob's pieces become more than 1,000",
        ),
        (
            part(100, text(1, "fc") + part(7, shape(1) + part(5, b"12345"))),
            "is damaged, or not a caffemodel: at byte 14 5 bytes are no values of 4 bytes each.",
        ),
        (
            part(100, number(1, 1) + b"\x00"),
            "is damaged, or not a caffemodel: at byte 3 field 1 is not what Caffe writes there.",
        ),
        (
            part(100, tag(7, 2) + varint(100) + b"\0"),
            "is cut off or damaged: the field at byte 3 ends at byte 105, but the file ends at "
            "byte 6.",
        ),
        (
            part(100, tag(7, 2) + varint(100) + b"\0") + text(3, "data"),
            "is cut off or damaged: the field at byte 3 ends at byte 105, but what holds it ends "
            "at byte 6.",
        ),
        (b"\x0b\x00", "is damaged, or not a caffemodel: at byte 0 a group begins or ends"),
        (bytes(100), "is damaged, or not a caffemodel: at byte 0 there is no field."),
    ],
)
def test_what_is_wrong_is_said_with_its_place(path, content, expected):
    assert message_of(path, content).startswith(expected)


def test_a_download_that_was_cut_off_is_called_that(path):
    write_caffemodel(path, LAYERS)
    content = path.read_bytes()
    message = message_of(path, content[:-1])
    assert message.startswith("is cut off or damaged: the field at byte ")
    end = len(content) - 1
    assert message.endswith(f"but the file ends at byte {end}. Copy or download it again.")


def test_a_name_that_is_no_utf_8_is_read(path):
    content = part(100, part(1, b"conv\xff") + part(7, shape(1) + part(5, floats(1))))
    assert list(opened(path, content)) == ["conv\ufffd"]


def test_a_name_with_control_characters_does_not_reach_the_terminal(path):
    content = part(100, text(1, "\x1b[2J" + "n" * 900) + part(7, b""))
    assert message_of(path, content).startswith("layer '\\x1b[2Jnnnn")


BOMBS = {
    # What is repeated, how many bytes the file has in all, and what is said of it.
    "empty layers": (part(2, b""), 100_000_000, "has more than 5,000 layers."),
    "names": (part(100, text(1, "n" * 900)), 20_000_000, "has more than 5,000 layers."),
    "messages": (part(50, b""), 20_000_000, "has more than 100,000 fields"),
    "numbers": (number(3, 1), 20_000_000, "has more than 100,000 fields"),
    "numbers that take turns": (
        tag(9, 5) + b"1234" + tag(10, 5) + b"1234",
        20_000_000,
        "has more than 100,000 fields",
    ),
    "numbers in a row": (tag(9, 5) + b"1234", 20_000_000, "holds no weights."),
}


@pytest.mark.parametrize("name", BOMBS)
def test_memory_does_not_grow_with_what_a_file_repeats(path, name):
    piece, size, expected = BOMBS[name]
    block = piece * (1_000_000 // len(piece))
    with path.open("wb") as file:
        file.write(text(1, "\0"))
        for _ in range(size // len(block)):
            file.write(block)
    tracemalloc.start()
    try:
        with pytest.raises(UserError) as error, open_caffemodel(path):
            pass
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert expected in str(error.value)
    assert peak < 10_000_000


def test_blobs_without_end_stay_within_memory(path):
    blob = part(7, shape(1) + part(5, floats(1)))
    layers = [part(100, text(1, f"layer {number}") + 100 * blob) for number in range(500)]
    path.write_bytes(b"".join(layers))
    tracemalloc.start()
    try:
        with pytest.raises(UserError, match="100,000 fields"), open_caffemodel(path):
            pass
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 60_000_000


def read_or_refused(path, content):
    """Reads a file of any bytes; a UserError has to be one printable sentence."""
    try:
        for blobs in opened(path, content).values():
            for blob in blobs:
                assert blob.data.size == np.prod(blob.shape)
    except UserError as error:
        assert str(error).isprintable()
        return
    try:
        read_mean(path)
    except UserError as error:
        assert str(error).isprintable()


@pytest.fixture(scope="module", params=["v1", "v2", "legacy"])
def small(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("small") / "net.caffemodel"
    version = "v1" if request.param == "v1" else "v2"
    write_caffemodel(path, LAYERS, version=version, legacy=request.param == "legacy")
    return path.read_bytes()


def test_a_small_file_cut_off_anywhere_is_refused_or_read_up_to_there(path, small):
    for end in range(len(small)):
        read_or_refused(path, small[:end])


@QUICK
@given(data=st.data())
def test_a_small_file_with_a_byte_changed_is_read_or_refused(tmp_path, small, data):
    content = bytearray(small)
    content[data.draw(st.integers(0, len(small) - 1))] ^= data.draw(st.integers(1, 255))
    read_or_refused(tmp_path / "net.caffemodel", bytes(content))


FIELDS = st.sampled_from([1, 2, 4, 5, 6, 7, 8, 10, 12, 100])
MESSAGES = st.recursive(
    st.one_of(
        st.binary(max_size=8),
        st.builds(number, FIELDS, st.integers(0, 2**64 - 1)),
        st.builds(lambda field, value: tag(field, 5) + floats(value), FIELDS, st.just(1.5)),
    ),
    lambda inner: st.builds(
        lambda field, pieces: part(field, b"".join(pieces)), FIELDS, st.lists(inner, max_size=4)
    ),
    max_leaves=12,
)


@QUICK
@given(content=st.lists(MESSAGES, max_size=4).map(b"".join))
def test_messages_in_any_nesting_are_read_or_refused(tmp_path, content):
    read_or_refused(tmp_path / "net.caffemodel", content)


@QUICK
@given(content=st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(tmp_path, content):
    read_or_refused(tmp_path / "net.caffemodel", content)
