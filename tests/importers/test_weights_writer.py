import h5py
import keras
import numpy as np
import pytest

from kerasft.backbones.chains import places
from kerasft.errors import UserError
from kerasft.importers import weights_writer
from kerasft.importers.weights_writer import Weights, fit, write_weights

CONVOLUTIONS = [place for place in places("CaffeNet") if len(place.kernel) == 4]


def weights_for(filled, seed=0):
    random = np.random.default_rng(seed)
    return {
        place.source: Weights(
            place.source,
            random.standard_normal(place.stored, np.float32),
            random.standard_normal(place.outputs, np.float32),
        )
        for place in filled
    }


def write(path, found, **more):
    return write_weights("CaffeNet", CONVOLUTIONS, found, path, where=path, **more)


def test_kernels_lie_as_keras_has_them_and_groups_are_parts_of_their_layer(tmp_path):
    found = weights_for(CONVOLUTIONS)
    assert write(tmp_path / "w.h5", found) == 2_334_080
    with h5py.File(tmp_path / "w.h5") as file:
        assert list(file.attrs["layer_names"])[:3] == [b"conv1", b"conv2_group1", b"conv2_group2"]
        second = file["conv2_group2/conv2_group2/kernel:0"]
        assert second.shape == (5, 5, 48, 128)
        assert second[3, 1, 40, 7] == found["conv2"].kernel[128 + 7, 40, 3, 1]
        assert file["conv2_group2/conv2_group2/bias:0"][7] == found["conv2"].bias[128 + 7]


def test_strips_of_any_length_give_the_same_file(tmp_path, monkeypatch):
    found = weights_for(CONVOLUTIONS)
    write(tmp_path / "long.h5", found)
    monkeypatch.setattr(weights_writer, "STRIP", 50_000)
    write(tmp_path / "short.h5", found)
    with h5py.File(tmp_path / "long.h5") as one, h5py.File(tmp_path / "short.h5") as other:
        for place in CONVOLUTIONS:
            name = f"{place.layer}/{place.layer}/kernel:0"
            assert other[name].chunks[-1] < one[name].chunks[-1] or place.layer == "conv1"
            np.testing.assert_array_equal(one[name][()], other[name][()])


def test_a_fully_connected_layer_is_rearranged_from_channels_first_to_channels_last(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(weights_writer, "STRIP", 200_000)
    place = next(place for place in places("CaffeNet") if place.source == "fc6")
    kernel = np.zeros((4096, 256, 6, 6), "float32")
    kernel[5, 200, 4, 1] = 7
    found = {"fc6": Weights("fc6", kernel.reshape(4096, -1), np.zeros(4096))}
    write_weights("CaffeNet", [place], found, tmp_path / "w.h5", where=tmp_path)
    with h5py.File(tmp_path / "w.h5") as file:
        written = file["fc6/fc6/kernel:0"][()]
    assert np.argwhere(written).tolist() == [[(4 * 6 + 1) * 256 + 200, 5]]


def test_a_shift_of_the_pixels_goes_into_the_first_bias_alone(tmp_path):
    found = weights_for(CONVOLUTIONS)
    write(tmp_path / "w.h5", found, shift=np.array([1.0, -2.0, 0.5]))
    first = found["conv1"]
    expected = first.bias + first.kernel.sum(axis=(2, 3)) @ [1.0, -2.0, 0.5]
    with h5py.File(tmp_path / "w.h5") as file:
        np.testing.assert_allclose(file["conv1/conv1/bias:0"], expected, rtol=1e-5, atol=1e-5)
        np.testing.assert_array_equal(file["conv3/conv3/bias:0"], found["conv3"].bias)


def test_keras_itself_reads_the_file(tmp_path):
    filled = [place for place in places("VGG16") if len(place.kernel) == 4]
    found = weights_for(filled)
    write_weights("VGG16", filled, found, tmp_path / "w.h5", where=tmp_path)
    net = keras.applications.VGG16(weights=str(tmp_path / "w.h5"), include_top=False)
    np.testing.assert_array_equal(
        net.get_layer("block4_conv2").kernel, found["conv4_2"].kernel.transpose(2, 3, 1, 0)
    )


def test_progress_is_told_of_every_layer(tmp_path):
    events = []
    write(tmp_path / "w.h5", weights_for(CONVOLUTIONS), progress=events.append)
    assert [(e.stage, e.done, e.total) for e in events] == [("import", n, 8) for n in range(1, 9)]
    assert events[1].figures == {"what": "conv2_group1"}


def test_what_goes_wrong_leaves_nothing_behind(tmp_path):
    found = weights_for(CONVOLUTIONS)
    found["conv5"].bias[3] = np.inf
    with pytest.raises(UserError, match="'conv5': biases are infinite or not a number"):
        write(tmp_path / "w.h5", found)
    assert list(tmp_path.iterdir()) == []


def test_doubles_beyond_float32_are_not_finite_numbers(tmp_path):
    for which, what in (("kernel", "weights"), ("bias", "biases")):
        found = weights_for(CONVOLUTIONS)
        arrays = {"kernel": found["conv3"].kernel, "bias": found["conv3"].bias}
        arrays[which] = arrays[which].astype("f8")
        arrays[which].flat[5] = 1e300
        found["conv3"] = Weights("conv3", **arrays)
        with pytest.raises(UserError, match=f"'conv3': {what} are infinite or not a number"):
            write(tmp_path / "w.h5", found)


def test_a_layer_behind_one_that_is_left_out_is_left_out_too(tmp_path):
    found = weights_for(CONVOLUTIONS)
    found["fc7"] = Weights("fc7", np.zeros((4096, 4096)), np.zeros(4096))
    filled, left_out = fit("CaffeNet", found, tmp_path)
    assert filled == CONVOLUTIONS
    assert left_out == [
        "fc6: expected weights 4096x9216 and biases, got none.",
        "fc7: left out with the layer before it.",
        "fc8: expected weights 1000x4096 and biases, got none.",
    ]
