"""Co-Tuning in a run: what is refused before training, and that it reaches the weights."""

import pytest
from tiny_run import draw_photos, small, weights

from kerasft.errors import UserError
from kerasft.training.train import plan_run, train_run


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return draw_photos(tmp_path_factory.mktemp("co_tuning") / "photos")


def settings(photos, *sets):
    """One phase of a block and an epoch on a real net with a classifier."""
    phase = ["phases.0.blocks=1", "phases.0.epochs=1", "model.image_size=32", *sets]
    net = {"model.backbone": "MobileNetV2", "model.weights": "imagenet"}
    return small(photos, *phase, **net)


@pytest.mark.parametrize(
    ("sets", "why"),
    [
        (("model.weights=none",), "needs one net with its ImageNet weights"),
        (
            ("model.backbone=MobileNetV2+MobileNet:alpha=0.75",),
            "needs one net with its ImageNet weights",
        ),
        (("head.leave_out=1",), "needs pooled features of the whole net"),
    ],
)
def test_a_net_without_a_classifier_on_its_features_is_refused(sets, why, photos, assets):
    with pytest.raises(UserError) as caught:
        plan_run(settings(photos, "phases.0.co_tuning=1.0", *sets))
    assert str(caught.value) == f"phases.0.co_tuning: Co-Tuning {why}."
    assert caught.value.exit_code == 2


@pytest.mark.slow
def test_the_second_loss_reaches_the_weights_and_not_the_model(photos, assets, tmp_path):
    losses, models = {}, {}
    for strength in ("0.0", "2.0"):
        for mode in ("on", "off"):
            sets = [f"phases.0.co_tuning={strength}", f"cache.mode={mode}", "augment.mixup=0"]
            run = tmp_path / f"{strength}-{mode}"
            result = train_run(settings(photos, *sets, "augment.views=1"), run).to_json()
            losses[strength, mode] = result["phases"][0]["train_loss"]
            models[strength, mode] = weights(run)
    for mode in ("on", "off"):
        assert losses["2.0", mode] > losses["0.0", mode] + 2.0  # of 1,000 classes
        assert models["2.0", mode] != models["0.0", mode]
        assert [path for path, _ in models["2.0", mode]] == [
            path for path, _ in models["0.0", mode]
        ]
    # The relation is the same, whether it was read from the store or from pixels.
    assert losses["2.0", "on"] == pytest.approx(losses["2.0", "off"], rel=0.02)
