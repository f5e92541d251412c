import os
import subprocess
import sys
from pathlib import Path

import keras
import pytest
from keras.src.utils import file_utils

from kerasft.backbones.imagenet_files import list_backbones, models_folder, weights_file
from kerasft.backbones.table import BACKBONES
from kerasft.models.build import load

KERNELS = "weights_tf_dim_ordering_tf_kernels"

# As they are called where Keras downloads them from.
FILES = {
    "MobileNet": "mobilenet_1_0_224_tf_no_top.h5",
    "MobileNetV2": f"mobilenet_v2_{KERNELS}_1.0_224_no_top.h5",
    "MobileNetV3Small": "weights_mobilenet_v3_small_224_1.0_float_no_top_v2.h5",
    "MobileNetV3Large": "weights_mobilenet_v3_large_224_1.0_float_no_top_v2.h5",
    **{f"EfficientNetB{i}": f"efficientnetb{i}_notop.h5" for i in range(8)},
    **{f"EfficientNetV2B{i}": f"efficientnetv2-b{i}_notop.h5" for i in range(4)},
    "EfficientNetV2S": "efficientnetv2-s_notop.h5",
    "EfficientNetV2M": "efficientnetv2-m_notop.h5",
    "EfficientNetV2L": "efficientnetv2-l_notop.h5",
    "ConvNeXtTiny": "convnext_tiny_notop.h5",
    "ConvNeXtSmall": "convnext_small_notop.h5",
    "ConvNeXtBase": "convnext_base_notop.h5",
    "ConvNeXtLarge": "convnext_large_notop.h5",
    "ConvNeXtXLarge": "convnext_xlarge_notop.h5",
    "ResNet50": f"resnet50_{KERNELS}_notop.h5",
    "ResNet101": f"resnet101_{KERNELS}_notop.h5",
    "ResNet152": f"resnet152_{KERNELS}_notop.h5",
    "ResNet50V2": f"resnet50v2_{KERNELS}_notop.h5",
    "ResNet101V2": f"resnet101v2_{KERNELS}_notop.h5",
    "ResNet152V2": f"resnet152v2_{KERNELS}_notop.h5",
    "DenseNet121": f"densenet121_{KERNELS}_notop.h5",
    "DenseNet169": f"densenet169_{KERNELS}_notop.h5",
    "DenseNet201": f"densenet201_{KERNELS}_notop.h5",
    "InceptionV3": f"inception_v3_{KERNELS}_notop.h5",
    "InceptionResNetV2": f"inception_resnet_v2_{KERNELS}_notop.h5",
    "Xception": f"xception_{KERNELS}_notop.h5",
    "NASNetMobile": "nasnet_mobile_no_top.h5",
    "NASNetLarge": "nasnet_large_no_top.h5",
    "VGG16": f"vgg16_{KERNELS}_notop.h5",
    "VGG19": f"vgg19_{KERNELS}_notop.h5",
}


def test_the_files_are_called_as_keras_calls_them():  # which test_every_net.py asks Keras itself
    published = {name: row for name, row in BACKBONES.items() if row.published}
    assert {name: weights_file(name, row.image_size) for name, row in published.items()} == FILES


VARIANTS = [
    ("MobileNet:alpha=0.25", 100, "mobilenet_2_5_224_tf_no_top.h5"),
    ("MobileNet:alpha=0.5", 128, "mobilenet_5_0_128_tf_no_top.h5"),
    ("MobileNet:alpha=0.75", 192, "mobilenet_7_5_192_tf_no_top.h5"),
    ("MobileNetV2:alpha=0.35", 96, f"mobilenet_v2_{KERNELS}_0.35_96_no_top.h5"),
    ("MobileNetV2:alpha=0.5", 128, f"mobilenet_v2_{KERNELS}_0.5_128_no_top.h5"),
    ("MobileNetV2:alpha=0.75", 160, f"mobilenet_v2_{KERNELS}_0.75_160_no_top.h5"),
    ("MobileNetV2:alpha=1.3", 32, f"mobilenet_v2_{KERNELS}_1.3_224_no_top.h5"),
    ("MobileNetV2:alpha=1.4", 192, f"mobilenet_v2_{KERNELS}_1.4_192_no_top.h5"),
    ("MobileNetV3Small:alpha=0.75", 32, "weights_mobilenet_v3_small_224_0.75_float_no_top_v2.h5"),
    (
        "MobileNetV3Small:minimalistic=true",
        32,
        "weights_mobilenet_v3_small_minimalistic_224_1.0_float_no_top_v2.h5",
    ),
    ("MobileNetV3Large:alpha=0.75", 96, "weights_mobilenet_v3_large_224_0.75_float_no_top_v2.h5"),
    (
        "MobileNetV3Large:minimalistic=true",
        32,
        "weights_mobilenet_v3_large_minimalistic_224_1.0_float_no_top_v2.h5",
    ),
]


def test_every_variant_is_in_the_list_below():
    specs = [f"{name}:{v}" for name, row in BACKBONES.items() for v in row.variants]
    assert sorted(spec for spec, _, _ in VARIANTS) == sorted(specs)


@pytest.mark.parametrize(("spec", "side", "file"), VARIANTS)
def test_the_files_of_variants_are_called_so(spec, side, file):
    assert weights_file(spec, side) == file


@pytest.mark.slow
@pytest.mark.parametrize(("spec", "side", "file"), VARIANTS)
def test_keras_asks_for_these_files_of_variants(spec, side, file, monkeypatch):
    def get_file(name, *_, **__):
        raise LookupError(name)

    monkeypatch.setattr(file_utils, "get_file", get_file)  # of Keras: it would download
    with pytest.raises(LookupError) as caught:
        load(spec, weights="imagenet", image_size=side)
    keras.backend.clear_session()
    assert caught.value.args == (file,)


def test_the_real_files_are_on_this_machine(assets, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(assets))
    listed = list_backbones()
    assert listed.folder == assets / "models"
    assert [row.name for row in listed.backbones if row.on_this_machine] == ["MobileNetV2"]
    variants = [variant for row in listed.backbones for variant in row.variants]
    assert [variant.spec for variant in variants if variant.on_this_machine] == [
        "MobileNet:alpha=0.25",
        "MobileNet:alpha=0.75",
        "MobileNetV2:alpha=0.35",
    ]


def test_a_download_is_about_as_large_as_the_real_file(assets):
    (row,) = (r for r in list_backbones().backbones if r.name == "MobileNetV2")
    real = (assets / "models" / FILES["MobileNetV2"]).stat().st_size
    assert 1.0 < real / row.download_bytes < 1.05


def test_a_row_says_this(monkeypatch, tmp_path):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    assert list_backbones().backbones[2].to_json() == {
        "name": "MobileNetV3Small",
        "image_size": 224,
        "min_size": 32,
        "parameters": 939_120,
        "features": 576,
        "blocks": 12,
        "download_bytes": 3_756_480,
        "on_this_machine": False,
        "options": ["alpha", "minimalistic"],
        "variants": [
            {"spec": "MobileNetV3Small:alpha=0.75", "on_this_machine": False},
            {"spec": "MobileNetV3Small:minimalistic=true", "on_this_machine": False},
        ],
    }


HOMES = {
    "named": ("KERAS_HOME", "named", "named/models"),
    "with a tilde": ("KERAS_HOME", "~/named", "named/models"),
    "not named": ("OTHER", "", ".keras/models"),
    "not there yet": ("KERAS_HOME", "new/deep/home", "new/deep/home/models"),
    "below a file": ("KERAS_HOME", "file/home", "/tmp/.keras/models"),
}


@pytest.fixture(params=HOMES)
def home(request, tmp_path, monkeypatch):
    """Prepares a working directory and the variables that say where Keras keeps its files."""
    (tmp_path / "named").mkdir()
    (tmp_path / "file").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("KERAS_HOME", raising=False)
    variable, value, folder = HOMES[request.param]
    monkeypatch.setenv(variable, value)
    return tmp_path / folder


def test_the_folder_is_named_by_the_environment_or_lies_in_the_home_directory(home):
    assert models_folder().absolute() == home


@pytest.mark.slow
def test_the_folder_is_the_one_that_keras_takes(home):
    code = """
from pathlib import Path
import keras
origin = Path("origin.txt").absolute()
origin.write_text("weights")
print(keras.utils.get_file("weights.txt", origin.as_uri(), cache_subdir="models"))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | {"KERAS_BACKEND": "numpy"},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    file = Path(done.stdout.splitlines()[-1])
    file.unlink()
    assert file.absolute() == home / "weights.txt"
