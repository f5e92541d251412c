import keras
import numpy as np
import pytest
from tiny import batch, tiny_model, weights_by_name
from tiny_run import small

from kerasft.input_rule import InputRule
from kerasft.models import bundle
from kerasft.models.cut import fingerprint
from kerasft.models.tta import trained_part, with_views
from kerasft.training.train import continue_run, train_run

PIXELS = batch(3)[0]


def logits(model, pixels):
    return np.asarray(keras.Model(model.inputs[0], model.get_layer("logits").output)(pixels))


def softmax(values):
    raised = np.exp(values - values.max(axis=1, keepdims=True))
    return raised / raised.sum(axis=1, keepdims=True)


def crops(side=16, cut=2):
    """Five crops of 7/8 of 16 pixels: corners and centre, resized to 16."""
    places = [(0, 0), (0, cut), (cut, 0), (cut, cut), (cut // 2, cut // 2)]
    inner = side - cut
    for top, left in places:
        crop = PIXELS[:, top : top + inner, left : left + inner]
        yield np.asarray(keras.ops.image.resize(crop, (side, side), "bilinear"))


def test_none_is_the_model_itself():
    model = tiny_model()
    assert with_views(model, "none") is model
    assert trained_part(model) is model


def test_flip_averages_the_logits_of_the_image_and_its_mirror_image():
    model = tiny_model()
    flipped = logits(model, PIXELS[:, :, ::-1])
    expected = (logits(model, PIXELS) + flipped) / 2
    assert np.abs(flipped - expected).max() > 1e-3  # else the test could not fail
    both = with_views(model, "flip")
    np.testing.assert_allclose(logits(both, PIXELS), expected, atol=1e-6)
    np.testing.assert_allclose(np.asarray(both(PIXELS)), softmax(expected), atol=1e-6)


def test_ten_crop_averages_five_crops_and_their_mirror_images():
    model = tiny_model()
    views = [view for crop in crops() for view in (crop, crop[:, :, ::-1])]
    expected = np.mean([logits(model, view) for view in views], axis=0)
    ten = with_views(model, "ten-crop")
    np.testing.assert_allclose(logits(ten, PIXELS), expected, atol=1e-5)


@pytest.mark.parametrize("mode", ["flip", "ten-crop"])
def test_the_model_with_views_loads_in_plain_keras_and_gives_back_what_was_trained(mode, tmp_path):
    model = tiny_model(dropout=0.5)
    bundle.save(
        bundle.Bundle(with_views(model, mode), ("a", "b"), InputRule(16)),
        tmp_path / "m.keras",
    )
    plain = keras.models.load_model(tmp_path / "m.keras", compile=False)
    np.testing.assert_array_equal(
        np.asarray(plain(PIXELS)), np.asarray(with_views(model, mode)(PIXELS))
    )
    inner = trained_part(plain)
    np.testing.assert_array_equal(np.asarray(inner(PIXELS)), np.asarray(model(PIXELS)))
    assert [d for _, d in fingerprint(plain)] == [d for _, d in fingerprint(model)]
    assert list(weights_by_name(inner)) == list(weights_by_name(model))


@pytest.mark.usefixtures("tiny_backbone")
def test_a_run_reports_and_ships_the_model_with_views_and_trains_the_one_inside(photos, tmp_path):
    train_run(small(photos), tmp_path / "plain")
    result = train_run(small(photos, "augment.test_time=flip"), tmp_path / "run").to_json()
    plain, views = (bundle.load(tmp_path / name / "model.keras").model for name in ("plain", "run"))
    assert [d for _, d in fingerprint(views)] == [d for _, d in fingerprint(plain)]
    assert [layer.name for layer in views.layers if isinstance(layer, keras.Model)] == [
        "classifier"
    ]
    assert result["phases"][0]["gap"]["loss"] < 1e-3  # of the model inside, not of the average
    second = continue_run(
        tmp_path / "run", flags={"phases.-1.blocks": 1, "phases.-1.epochs": 1}
    ).to_json()
    assert second["phases"][1]["frozen_proof"] == "equal"
    again = bundle.load(tmp_path / "run" / "model.keras").model
    assert [layer.name for layer in again.layers if isinstance(layer, keras.Model)] == [
        "classifier"
    ]
