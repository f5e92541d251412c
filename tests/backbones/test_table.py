import inspect

import pytest

from kerasft.backbones.spec import parse, same_net
from kerasft.backbones.table import BACKBONES, block_key
from kerasft.errors import UserError


def test_the_table_holds_all_that_keras_has():
    import keras

    exported = [name for name in dir(keras.applications) if name[0].isupper()]
    ours = ["AlexNet", "AlexNetOWT", "CaffeNet"]
    assert sorted(BACKBONES) == sorted([*exported, *ours])
    assert [name for name, row in BACKBONES.items() if not row.published] == [
        "AlexNet",
        "CaffeNet",
        "AlexNetOWT",
    ]
    assert len(BACKBONES) == 43


def test_the_options_are_arguments_of_the_constructors():
    import keras

    for name, row in [(n, r) for n, r in BACKBONES.items() if r.published]:
        arguments = inspect.signature(getattr(keras.applications, name)).parameters
        known = {"alpha", "depth_multiplier", "minimalistic"} & set(arguments)
        assert set(row.options) - {"mode"} == known
        for variant in row.variants:
            assert parse(f"{name}:{variant}")[1]


def test_a_spec_may_set_options_of_the_constructor():
    backbone, options = parse("MobileNet:alpha=0.75,depth_multiplier=2")
    assert backbone.name == "MobileNet"
    assert options == {"alpha": 0.75, "depth_multiplier": 2}
    assert parse("MobileNetV3Large:alpha=1,minimalistic=true")[1] == {
        "alpha": 1.0,
        "minimalistic": True,
    }
    assert parse("VGG16")[1] == {}


def test_alpha_is_a_float_however_it_is_written():
    # Keras makes the name of MobileNetV3's weights of it: "large_224_1.0_float".
    assert isinstance(parse("MobileNetV3Large:alpha=1")[1]["alpha"], float)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("MobilNetV2", "backbone: unknown name 'MobilNetV2'. Did you mean 'MobileNetV2'? `kera"),
        ("resnet50", "backbone: unknown name 'resnet50'. Did you mean 'ResNet50'? `kera"),
        ("", "backbone: unknown name ''. `kerasft backbones` lists all 43."),
        (
            "MobileNet:alfa=1",
            "backbone: 'MobileNet:alfa=1': unknown option 'alfa'. Did you mean 'alpha'? "
            "Options of MobileNet: alpha, depth_multiplier.",
        ),
        (
            "VGG16:alpha=1",
            "backbone: 'VGG16:alpha=1': unknown option 'alpha'. Options of VGG16: mode.",
        ),
        (
            "MobileNet:alpha=wide",
            "backbone: 'MobileNet:alpha=wide': expected alpha to be a number over 0, at most 4, "
            "got 'wide'.",
        ),
        ("MobileNet:alpha=75", "expected alpha to be a number over 0, at most 4, got '75'."),
        ("MobileNet:alpha=-1", "expected alpha to be a number over 0, at most 4, got '-1'."),
        ("MobileNet:alpha=nan", "expected alpha to be a number over 0, at most 4, got 'nan'."),
        ("MobileNet:alpha", "expected alpha to be a number over 0, at most 4, got ''."),
        ("MobileNet:alpha=1,alpha=1", "'MobileNet:alpha=1,alpha=1': alpha is given twice"),
        (
            "MobileNet:depth_multiplier=1.5",
            "expected depth_multiplier to be a whole number from 1 to 8, got '1.5'.",
        ),
        (
            "MobileNetV3Small:minimalistic=1",
            "expected minimalistic to be true or false, got '1'.",
        ),
        ("MobileNet:", "unknown option ''."),
        ("ResNet50:alpha=1", "unknown option 'alpha'. Options of ResNet50: none."),
        ("VGG16:mode=tf", "expected mode to be caffe or torch, got 'tf'."),
    ],
)
def test_a_bad_spec_is_refused_with_what_was_expected(spec, message):
    with pytest.raises(UserError) as caught:
        parse(spec)
    assert message in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("name", "layer", "key"),
    [
        ("MobileNet", "conv_dw_12", "conv_12"),
        ("MobileNet", "conv_pw_1_relu", "conv_1"),
        ("MobileNet", "conv_pad_12", "conv_12"),
        ("MobileNet", "conv1_bn", None),
        ("MobileNet", "conv_preds", None),
        ("MobileNetV2", "block_1_expand", "block_1"),
        ("MobileNetV2", "block_16_project_BN", "block_16"),
        ("MobileNetV2", "expanded_conv_depthwise", "expanded_conv"),
        ("MobileNetV2", "Conv_1", None),
        ("MobileNetV3Small", "expanded_conv_depthwise", "expanded_conv"),
        ("MobileNetV3Large", "expanded_conv_14_project_bn", "expanded_conv_14"),
        ("MobileNetV3Large", "conv_1", None),
        ("VGG16", "block5_pool", "block5"),
        ("VGG19", "fc2", "fc2"),
        ("VGG19", "flatten", None),
        ("AlexNet", "conv2_group1", "conv2"),
        ("AlexNet", "conv2_norm_from3", "conv2"),
        ("CaffeNet", "conv5_pool", "conv5"),
        ("CaffeNet", "fc6_dropout", "fc6"),
        ("AlexNetOWT", "conv1_pad", "conv1"),
        ("AlexNet", "rescaling_3", None),
        ("ResNet50", "conv5_block1_0_conv", "conv5_block1"),
        ("ResNet101", "conv4_block23_add", "conv4_block23"),
        ("ResNet50", "conv1_conv", None),
        ("ResNet50", "pool1_pool", None),
        ("ResNet50V2", "post_bn", None),
        ("DenseNet121", "conv5_block16_concat", "conv5"),
        ("DenseNet121", "pool4_conv", "conv4"),
        ("DenseNet121", "pool1", None),
        ("DenseNet121", "conv1_conv", None),
        ("EfficientNetB0", "block7a_se_reduce", "block7a"),
        ("EfficientNetB0", "top_conv", None),
        ("EfficientNetV2B0", "block6h_add", "block6h"),
        ("EfficientNetV2L", "block6y_add", "block6y"),
        ("InceptionResNetV2", "mixed_7a", "mixed_7a"),
        ("InceptionResNetV2", "block17_20_mixed", "block17_20"),
        ("InceptionResNetV2", "conv_7b_bn", None),
        ("NASNetMobile", "stem_bn1", None),
        ("NASNetMobile", "reduction_add3_stem_1", "cell_stem_1"),
        ("NASNetMobile", "separable_conv_2_bn_reduction_left1_stem_2", "cell_stem_2"),
        ("NASNetMobile", "adjust_avg_pool_1_9", "cell_9"),
        ("NASNetMobile", "normal_conv_1_12", "cell_12"),
        ("NASNetLarge", "separable_conv_1_pad_reduction_right1_reduce_12", "cell_reduce_12"),
        ("NASNetLarge", "activation_12", None),
        ("NASNetLarge", "add_1", None),
        ("InceptionV3", "mixed10", "mixed10"),
        ("InceptionV3", "mixed9_1", None),  # a part of mixed10
        ("InceptionV3", "conv2d_94", None),
        ("Xception", "block14_sepconv2_act", "block14"),
        ("Xception", "add_11", None),
        ("ConvNeXtTiny", "convnext_tiny_stage_3_block_2_gelu", "stage_3_block_2"),
        ("ConvNeXtTiny", "convnext_tiny_downsampling_block_0", None),
    ],
)
def test_a_layer_names_its_block(name, layer, key):
    assert block_key(BACKBONES[name], layer) == key


def test_vgg_without_a_mode_is_vgg_of_caffe():
    assert same_net("VGG16", "VGG16:mode=caffe")
    assert not same_net("VGG16", "VGG16:mode=torch")
