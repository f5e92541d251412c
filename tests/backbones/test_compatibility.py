import pytest

from kerasft.backbones.compatibility import check_weights, weights_of
from kerasft.config.load import load_config, to_toml
from kerasft.errors import UserError


def test_weights_that_keras_does_not_have_are_refused_with_the_command_that_imports_them():
    cases = {
        "AlexNet": "import-caffe",
        "CaffeNet": "import-caffe",
        "AlexNetOWT": "import-torch",
        "VGG16:mode=torch": "import-torch",
    }
    for spec, command in cases.items():
        with pytest.raises(UserError) as caught:
            check_weights(f"MobileNet+{spec}", "imagenet")
        advice = f"Import a file with `kerasft {command}` and pass the file that it writes"
        assert advice in str(caught.value)
        assert caught.value.exit_code == 2
        check_weights(spec, "none")
    check_weights("VGG16:mode=caffe", "imagenet")
    check_weights("VGG19+ResNet50", "imagenet")


def test_weights_are_joined_only_where_each_part_is_a_word_or_a_file():
    assert weights_of("alexnet.h5+imagenet") == ("alexnet.h5", "imagenet")
    assert weights_of("a.h5+b.weights.h5+c.KERAS") == ("a.h5", "b.weights.h5", "c.KERAS")
    assert weights_of("runs/cats+dogs") == ("runs/cats+dogs",)
    assert weights_of("/c++/a.h5+imagenet") == ("/c++/a.h5", "imagenet")
    assert weights_of("a.h5 + imagenet") == ("a.h5", "imagenet")
    assert weights_of("a.h5+b") == ("a.h5+b",)
    assert weights_of("imagenet", 2) == ("imagenet", "imagenet")
    assert weights_of("none+imagenet", 2) == ("none", "imagenet")


def test_weights_for_another_number_of_backbones_are_refused():
    with pytest.raises(UserError) as caught:
        check_weights("VGG16+MobileNet", "a.h5+imagenet+none")
    assert str(caught.value) == (
        "weights: expected one for each backbone in VGG16+MobileNet, joined by '+', or one word "
        "for all, got 3."
    )


def test_a_config_takes_the_weights_of_each_backbone_and_writes_them_relative_to_itself(tmp_path):
    file = tmp_path / "both.toml"
    file.write_text(
        '[data]\nsource = "photos"\n[model]\nbackbone = ["AlexNet", "MobileNetV2"]\n'
        'weights = ["nets/alexnet.h5", "imagenet"]\n'
    )
    config = load_config(file, flags={}, sets=())
    assert config.model.weights == f"{tmp_path}/nets/alexnet.h5+imagenet"
    written = to_toml(config, tmp_path / "runs")
    assert 'weights = "../nets/alexnet.h5+imagenet"' in written
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "config.toml").write_text(written)
    assert load_config(tmp_path / "runs" / "config.toml", flags={}, sets=()) == config
