"""Random crops, flips and colour changes of training images, reproducible by seed.

Everything here is stateless: a view of an image depends on its seed alone, not on threads,
order or earlier draws. Philox is named explicitly, because TensorFlow's default generator
depends on the device.

Shapes: h, w image height and width; S side of the model's square input, pixels.
"""

from __future__ import annotations

from kerasft.lazy_tensorflow import tf

# The largest change of brightness, contrast and saturation at full strength, as a factor.
# Source: fb.resnet.torch, datasets/transforms.lua and imagenet.lua (ColorJitter).
COLOR_RANGE = 0.4
# Rec. 601 weights of red, green and blue in perceived brightness.
_LUMA = (0.299, 0.587, 0.114)


def augment_crop(image: tf.Tensor, smallest: float, seed: tf.Tensor) -> tf.Tensor:
    """Cuts out a random part of an image.

    Args:
        image: uint8 [h, w, 3].
        smallest: lower limit of the share of the area that is kept, above 0 and below 1. The
            share is drawn between it and 1.
        seed: int32 [2]. `augment_pixels` may use the same seed for the same image.

    Returns:
        uint8 [h', w', 3], with an aspect ratio of 3:4 to 4:3. An image into which no such
        part fits (a narrow panorama) is returned whole.

    Source: Szegedy et al. 2014, "Going deeper with convolutions", section 6.
    """
    begin, size, _ = tf.image.stateless_sample_distorted_bounding_box(
        tf.shape(image),
        tf.constant([[[0.0, 0.0, 1.0, 1.0]]]),
        tf.random.experimental.stateless_fold_in(seed, 1, alg="philox"),
        min_object_covered=0.0,
        aspect_ratio_range=(3 / 4, 4 / 3),
        area_range=(smallest, 1.0),
        max_attempts=20,
    )
    cropped = tf.slice(image, begin, size)
    cropped.set_shape([None, None, 3])
    return cropped


def augment_pixels(
    image: tf.Tensor, flip: bool, color: float, seed: tf.Tensor, view: tf.Tensor
) -> tf.Tensor:
    """Mirrors every other view and changes brightness, contrast and saturation.

    Args:
        image: float32 [S, S, 3], values 0 to 255.
        flip: whether half of the views are mirrored, left to right.
        color: strength, 0 (off) to 1: factors are drawn from 1 - 0.4 color to 1 + 0.4 color.
        seed: int32 [2].
        view: int32 scalar, number of the view. Odd views are mirrored, so that two views differ
            even if nothing else is changed. A negative number means: mirrored at random.

    Returns:
        float32 [S, S, 3], values clipped to 0 to 255.
    """
    seed = tf.random.experimental.stateless_fold_in(seed, 2, alg="philox")
    drawn = tf.random.stateless_uniform([4], seed, alg="philox")
    if flip:
        mirrored = tf.where(view < 0, drawn[0] < 0.5, view % 2 == 1)
        image = tf.cond(mirrored, lambda: tf.reverse(image, [1]), lambda: image)
    if color:
        brightness, contrast, saturation = tf.unstack(1 + COLOR_RANGE * color * (2 * drawn[1:] - 1))
        image = image * brightness
        gray = tf.reduce_sum(image * _LUMA, -1, keepdims=True)
        mean = tf.reduce_mean(gray)
        image = gray + (image - gray) * saturation
        image = mean + (image - mean) * contrast
    return tf.clip_by_value(image, 0.0, 255.0)
