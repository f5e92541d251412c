"""The example beside each export: a program without kerasft that computes what kerasft computes."""

import json
import re
import runpy
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from drawing import draw_photo, draw_photos, encode_png
from PIL import Image
from small_run import NAMES, small_bundle

from kerasft.export import facts as facts_module
from kerasft.export.facts import ExportFacts, write_example, write_facts
from kerasft.export.formats import EXPORTERS
from kerasft.export.parity import generated_images
from kerasft.input_rule import WHITE, InputRule
from kerasft.models.bundle import Bundle
from kerasft.pixels import images

EXAMPLES = Path(facts_module.__file__).with_name("use")
OF_PIXELS = [format for format, row in EXPORTERS.items() if row.takes == "pixels"]

# Pillow and TensorFlow let libjpeg decode with different cosine transforms, by 0.9 gray levels in
# the mean. The guide page "export" states these limits.
MEAN, MOST, SCORES = 1.5, 16, 0.05

HEAVY = {"kerasft", "tensorflow", "keras"}


def exported(format, opened, folder):
    """Writes an export with its example; returns the folder."""
    folder.mkdir(parents=True)
    facts = ExportFacts.of(opened, format)
    EXPORTERS[format].write(opened, folder, facts, None)
    write_facts(folder, facts)
    write_example(folder, format)
    return folder


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Drawn photos, image files of the kinds on which decoders disagree, and a large one."""
    folder = tmp_path_factory.mktemp("photos")
    for name, encoded in generated_images().items():
        (folder / name).write_bytes(encoded)
    (folder / "odd.png").write_bytes(encode_png(draw_photo("circle", 1, seed=0, size=(201, 300))))
    grain = np.random.default_rng(0).integers(0, 256, (407, 611, 3)).astype(np.uint8)
    Image.fromarray(grain).save(folder / "large.jpg", quality=92)  # decoded at a part of its size
    drawn = draw_photos(folder / "drawn", per_class=2)
    return [*sorted(folder.glob("*.*")), *sorted(drawn.rglob("*.*"))]


def run_alone(python, folder, code):
    """Runs code in a process that sees neither this checkout nor its environment variables."""
    done = subprocess.run(
        [str(python), "-I", "-c", code], cwd=folder, env={}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def scores_by_example(folder, photos, python=sys.executable):
    """Returns scores [N,K] that the example computes, and the packages that it has loaded."""
    code = (
        "import json, runpy, sys\n"
        "example = runpy.run_path('use/predict.py')\n"
        f"paths = {[str(path) for path in photos]}\n"
        "scores = [example['scores_of'](path).tolist() for path in paths]\n"
        "print(json.dumps([scores, sorted({n.partition('.')[0] for n in sys.modules})]))"
    )
    scores, loaded = json.loads(run_alone(python, folder, code))
    return np.array(scores), set(loaded)


def scores_of_ours(opened, photos):
    squares = [images.square_of(tf.io.read_file(str(path)), opened.rule) for path in photos]
    return opened.model.predict_on_batch(np.stack(squares))


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """One export of `small_bundle` in each format, by format."""
    folder, opened = tmp_path_factory.mktemp("exports"), small_bundle()
    return {format: exported(format, opened, folder / format) for format in EXPORTERS}


@pytest.mark.parametrize("format", OF_PIXELS)
def test_the_example_computes_our_scores_without_kerasft(format, folders, photos):
    expected = scores_of_ours(small_bundle(), photos)
    scores, loaded = scores_by_example(folders[format], photos)
    np.testing.assert_allclose(scores, expected, rtol=0, atol=SCORES)
    assert np.ptp(expected, axis=0).min() > 5 * SCORES  # scores differ between the photos
    assert loaded & HEAVY == ({"tensorflow", "keras"} if format == "keras" else set())


@pytest.mark.parametrize("resize", images.RESIZE_MODES)
def test_the_example_resizes_as_we_do(resize, photos, tmp_path):
    rule = InputRule(48, resize, (10, 200, 30), 8)
    difference, lossless = compare_squares(rule, photos, tmp_path)
    assert difference[:, 0].max() < MEAN and difference[:, 1].max() < MOST
    assert len(lossless) >= 5 and lossless[:, 1].max() < 0.01  # both resize the same pixels


def test_a_model_of_kerasft_0_2_drops_transparency(photos, tmp_path):
    _, lossless = compare_squares(InputRule(48), photos, tmp_path)
    assert lossless[:, 1].max() < 0.01


def compare_squares(rule, photos, folder):
    """Returns mean and largest differences of pixels, of all photos and of those without loss.

    Without loss are opaque PNG and GIF files: of transparent ones, the two round differently.
    """
    square = square_of_example(rule, folder)
    rows = []
    for path in photos:
        ours = images.square_of(tf.io.read_file(str(path)), rule).numpy()
        gap = np.abs(square(str(path))[0] - ours)
        rows.append((gap.mean(), gap.max()))
    exact = [
        row
        for row, path in zip(rows, photos, strict=True)
        if path.suffix != ".jpg" and (path.name != "alpha.png" or rule.background is None)
    ]
    return np.array(rows), np.array(exact)


def square_of_example(rule, folder):
    """Returns the function of the example that reads a photo."""
    opened = Bundle(small_bundle().model, ("a", "b", "c"), rule)
    write_facts(folder, ExportFacts.of(opened, "onnx"))
    write_example(folder, "onnx")
    program = folder / "use" / "predict.py"
    text = re.sub(r"^MODEL = .*$", "", program.read_text("utf-8"), flags=re.MULTILINE)
    program.write_text(text, "utf-8")  # there is no model
    return runpy.run_path(str(program))["square"]


def test_real_photos_are_read_within_the_limits(assets, tmp_path):
    found = [
        path
        for name in ("ants_bees", "clothes10", "flowers5", "steel6")
        for path in sorted((assets / "datasets" / name).rglob("*.jpg"))[::97][:8]
    ]
    difference, _ = compare_squares(InputRule(224, "stretch", WHITE, 8), found, tmp_path)
    assert len(difference) >= 20
    assert difference[:, 0].max() < MEAN and difference[:, 1].max() < MOST


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_16_bits_for_each_colour_are_refused_by_the_example(tmp_path, channels):
    deep = np.full((9, 9, channels), 4000, np.uint16)
    (tmp_path / "deep.png").write_bytes(tf.io.encode_png(deep).numpy())
    square = square_of_example(InputRule(8, "stretch", WHITE, 12), tmp_path)
    with pytest.raises(SystemExit, match=r"deep\.png: convert it to 8 bits"):
        square(str(tmp_path / "deep.png"))


def printed(folder, *paths):
    done = subprocess.run(
        [sys.executable, "-I", "use/predict.py", *map(str, paths)],
        cwd=folder, env={}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return done.stdout


def test_the_example_prints_label_and_score(folders, photos):
    scores = scores_of_ours(small_bundle(), photos[:2])
    lines = printed(folders["onnx"], *photos[:2]).splitlines()
    for line, path, row in zip(lines, photos[:2], scores, strict=True):
        label, score = line.removeprefix(f"{path}: ").split()
        assert label == NAMES[row.argmax()]
        assert float(score) == pytest.approx(row.max(), abs=SCORES)


def test_below_the_threshold_the_example_does_not_know(folders, photos, tmp_path):
    folder = shutil.copytree(folders["onnx"], tmp_path / "1")
    facts = json.loads((folder / "kerasft.json").read_text("utf-8"))
    (folder / "kerasft.json").write_text(json.dumps({**facts, "threshold": 1.1}), "utf-8")
    assert printed(folder, photos[0]) == f"{photos[0]}: I don't know\n"


def test_the_example_of_a_savedmodel_says_what_is_wrong_with_a_file(folders, photos, tmp_path):
    (tmp_path / "text.jpg").write_text("no image")
    lines = printed(folders["saved-model"], tmp_path / "text.jpg", photos[0]).splitlines()
    reason = "is not a JPEG, PNG, GIF, BMP or WebP image"
    assert lines[0] == f"{tmp_path / 'text.jpg'}: {reason}"
    best = scores_of_ours(small_bundle(), photos[:1])[0]
    assert lines[1] == f"{photos[0]}: {NAMES[best.argmax()]} {best.max():.3f}"


def test_every_format_has_an_example_and_all_read_photos_in_the_same_way():
    assert {path.name.partition(".")[0] for path in EXAMPLES.iterdir()} >= set(EXPORTERS)
    texts = {path.name: path.read_text("utf-8") for path in EXAMPLES.glob("*.py.txt")}
    squares = {
        name: re.search(r"^def square\(.*?^def ", text, re.DOTALL | re.MULTILINE)
        for name, text in texts.items()
        if not name.startswith("saved-model")
    }
    assert len(squares) == 4 and len({found and found[0] for found in squares.values()}) == 1
    assert [
        name for name, text in texts.items() if re.search(r"^(import|from) kerasft", text)
    ] == []


@pytest.mark.slow  # downloads the packages that the example needs
@pytest.mark.parametrize("format", [key for key in OF_PIXELS if key != "keras"])
def test_the_example_runs_where_nothing_but_its_requirements_is_installed(
    format, folders, photos, tmp_path
):
    folder = folders[format]
    venv.create(tmp_path / "clean", with_pip=True)
    (python,) = [path for path in (tmp_path / "clean").glob("*/python*") if path.stem == "python"]
    install = [str(python), "-m", "pip", "install", "-q", "-r", "use/requirements.txt"]
    subprocess.run(install, cwd=folder, check=True)
    scores, loaded = scores_by_example(folder, photos, python)
    np.testing.assert_allclose(scores, scores_of_ours(small_bundle(), photos), rtol=0, atol=SCORES)
    assert "kerasft" not in loaded
