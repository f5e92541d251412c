"""What model.keras knows of a photo, beside an export: heat maps, and what is new to it."""

import asyncio

import keras
import numpy as np
import pytest
from encoded import PHOTO, encode
from PIL import Image
from small_run import NAMES, small_bundle, small_model, small_run
from starlette.exceptions import HTTPException

from kerasft.errors import UserError
from kerasft.files import digest_of_file
from kerasft.models import bundle
from kerasft.models.bundle import Bundle
from kerasft.novelty import known
from kerasft.novelty.known import Known
from kerasft.run import Run
from kerasft.serving.insight import MOST, Insight


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return Run(small_run(tmp_path_factory.mktemp("served")))


@pytest.fixture
def insight(run):
    insight = Insight(run)
    yield insight
    insight.stop()


def known_photos():
    pixels = keras.Input((32, 32, 3), name="activations")
    color = keras.layers.GlobalAveragePooling2D()(pixels)
    features = known.unit(np.ones((1, 3))).astype("float16")  # of a gray photo
    return Known("", keras.Model(pixels, color), features, 0.01, 10)


def test_a_heat_map_is_that_of_its_class(insight):
    pictures = [asyncio.run(insight.explain(PHOTO, name)) for name in NAMES]
    assert all(picture.startswith(b"\x89PNG") for picture in pictures)
    assert len(set(pictures)) > 1
    assert asyncio.run(insight.explain(PHOTO, None)) in pictures
    with pytest.raises(UserError, match="There is no class 'dog'"):
        asyncio.run(insight.explain(PHOTO, "dog"))


def test_a_model_that_was_trained_on_is_opened_again(run, insight):
    before = asyncio.run(insight.explain(PHOTO, None))
    other = small_bundle()
    bundle.save(Bundle(small_model(3, seed=5), other.class_names, other.rule), run.model_path)
    assert asyncio.run(insight.explain(PHOTO, None)) != before
    bundle.save(other, run.model_path)


def test_a_photo_unlike_the_known_ones_is_noticed(run, insight):
    asyncio.run(insight.explain(PHOTO, None))  # it is opened without known photos
    gray, red = (encode(Image.new("RGB", (40, 40), one), "PNG") for one in ("gray", "red"))
    known.save(known_photos(), run.known_path)
    assert (asyncio.run(insight.novel(gray)), asyncio.run(insight.novel(red))) == (False, True)
    run.known_path.unlink()
    assert asyncio.run(insight.novel(red)) is None


def test_photos_that_are_explained_do_not_keep_others_from_being_compared(run, insight):
    known.save(known_photos(), run.known_path)

    async def test():
        explained = [asyncio.ensure_future(insight.explain(PHOTO, None)) for _ in range(MOST)]
        compared = await asyncio.gather(*[insight.novel(PHOTO) for _ in range(MOST + 2)])
        return compared, await asyncio.gather(*explained)

    compared, explained = asyncio.run(test())
    run.known_path.unlink()
    assert (compared, len(explained)) == ([True] * (MOST + 2), MOST)


def test_more_photos_than_may_wait_are_sent_away(insight):
    async def test():
        asked = [asyncio.ensure_future(insight.explain(PHOTO, None)) for _ in range(MOST + 2)]
        return await asyncio.gather(*asked, return_exceptions=True)

    refused = [one for one in asyncio.run(test()) if isinstance(one, HTTPException)]
    assert [one.status_code for one in refused] == [503, 503]
    assert asyncio.run(insight.explain(PHOTO, None))


def test_a_model_that_was_trained_on_since_explains_nothing_of_the_served_version(insight, run):
    digest = digest_of_file(run.model_path)
    assert asyncio.run(insight.explain(PHOTO, None, digest))
    with pytest.raises(UserError, match="trained on or calibrated since this version was exported"):
        asyncio.run(insight.explain(PHOTO, None, digest[::-1]))
