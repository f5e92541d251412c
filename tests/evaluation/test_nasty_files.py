"""Image files as they turn up in the wild: each command says the same of them."""

import shutil

import numpy as np
import pytest
from drawing import draw_photos
from small_run import small_run

from kerasft.checking.check import check_photos
from kerasft.config.load import load_config
from kerasft.data.scan import scan_source
from kerasft.evaluation.predict import predict
from kerasft.export.savedmodel import write as write_savedmodel
from kerasft.models import bundle

REFUSED = {
    "broken_data_stream.png": "is truncated",
    "decompression_bomb.gif": "has 65535x66601 pixels, more than the "
    "100,000,000 that kerasft reads",
    "made_empty.jpg": "is empty",
    "made_text_named.jpg": "is not a JPEG, PNG, GIF, BMP or WebP image",
    "made_truncated_header.jpg": "is truncated",
    "truncated_image.png": "is truncated",
}


@pytest.fixture(scope="module")
def folder(assets, tmp_path_factory):
    """A run, its export, and photos of three classes, one of which has all nasty files."""
    folder = tmp_path_factory.mktemp("nasty")
    run = small_run(folder)
    write_savedmodel(bundle.load(run / "model.keras"), folder / "served")
    draw_photos(folder / "all")
    for path in (assets / "nasty").iterdir():
        shutil.copy(path, folder / "all/circle" / path.name)
    return folder


@pytest.mark.slow  # of bad files of other kinds: test_predict.py, test_savedmodel.py
def test_a_model_and_its_export_refuse_the_same_files_and_agree_on_the_others(folder, assets):
    ours, served = (
        predict(folder / target, assets / "nasty", top=3) for target in ("run", "served")
    )
    names = [answer.file.rpartition("/")[2] for answer in ours]
    assert len(names) == 30
    errors = {name: one.error for name, one in zip(names, ours, strict=True) if one.error}
    assert errors == REFUSED
    assert [one.error for one in served] == [one.error for one in ours]
    for mine, theirs in zip(ours, served, strict=True):
        assert [one.label for one in mine.labels] == [one.label for one in theirs.labels]
        scores = ([one.score for one in answer.labels] for answer in (mine, theirs))
        np.testing.assert_allclose(*scores, atol=1e-4)


def test_train_and_check_refuse_the_same_files(folder):
    flags = {"data.source": str(folder / "all"), "model.weights": "none"}
    config = load_config(None, flags={**flags, "data.bad_images": "skip"})
    found = scan_source(config.data, seed=0)
    skipped = {path.rpartition("/")[2]: reason for path, reason in found.skipped}
    assert skipped == REFUSED
    checked = check_photos(flags)
    assert {one.path.rpartition("/")[2]: one.reason for one in checked.unreadable} == REFUSED
    assert found.peak > 255  # two of the files have 16 bits
