import io
import json
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from drawing import draw_photos
from PIL import Image
from small_run import NAMES, small_bundle

from kerasft.errors import UserError
from kerasft.export import parity
from kerasft.export.facts import ExportFacts, write_facts
from kerasft.export.parity import Proof
from kerasft.export.savedmodel import write as write_savedmodel
from kerasft.input_rule import WHITE, InputRule
from kerasft.models import bundle
from kerasft.pixels import images


def sides():
    """What two processes that agree hand over: 4 images, 8 of noise, 3 classes."""
    rng = np.random.default_rng(0)
    logits = {"files": rng.normal(size=(4, 3)), "noise": rng.normal(size=(8, 3))}
    reference = {}
    for name, values in logits.items():
        for size in (1, 7):
            scores = np.exp(values) / np.exp(values).sum(axis=1, keepdims=True)
            reference[f"scores_{name}_{size}"] = scores
            reference[f"logits_{name}_{size}"] = values
    best = reference["scores_files_1"].argmax(axis=1)
    export = {name: values.copy() for name, values in reference.items()}
    export["labels"] = np.array(NAMES)
    for size in (1, 7):
        export[f"answered_{size}"] = reference[f"logits_files_{size}"].copy()
        export[f"top_label_{size}"] = np.array(NAMES)[best]
        export[f"top_score_{size}"] = reference["scores_files_1"].max(axis=1)
    return export, reference


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A model file, some photos, and the model as SavedModel."""
    folder = tmp_path_factory.mktemp("parity")
    opened = small_bundle()
    bundle.save(opened, folder / "model.keras")
    write_savedmodel(opened, folder / "saved")
    draw_photos(folder / "photos", per_class=3)
    return folder


def prove(made, name, work, **changes):
    rule = changes.pop("rule", InputRule(32, "stretch", WHITE, 8))
    facts = ExportFacts("saved-model", None, NAMES, rule)
    photos = sorted((made / "photos").rglob("*.*"))
    return parity.prove(
        made / name, made / "model.keras", photos, work=work, facts=facts, **changes
    )


@pytest.mark.slow  # every export of test_savedmodel.py is proven too
def test_an_export_of_the_same_model_agrees(made, tmp_path):
    told = []
    result = prove(made, "saved", tmp_path, progress=told.append)
    assert (result.n, result.top1_agreement) == (9 + 11, 1.0)  # 9 photos, 11 generated
    assert 0 <= result.max_abs_diff < 1e-5  # the last digits of float32
    assert 0 <= result.max_abs_diff_logits < 1e-4  # logits are about ten times as large
    assert [(event.stage, event.done, event.total) for event in told] == [
        ("check", 0, 2), ("check", 1, 2), ("check", 2, 2),
    ]  # fmt: skip


@pytest.mark.slow  # red and blue swapped: test_savedmodel.py
def test_an_export_that_resizes_in_another_way_is_refused(made, tmp_path):
    with pytest.raises(UserError, match=r"scores of 20 images differ by up to 0\.\d+ \(allowed"):
        prove(made, "saved", tmp_path, rule=InputRule(32, "crop", WHITE, 8))


@pytest.mark.slow
def test_an_export_that_cannot_be_loaded_is_refused(made, tmp_path):
    with pytest.raises(UserError, match="the process that loads the export ended with status 1"):
        prove(made, "absent", tmp_path)


def test_the_process_of_the_export_imports_no_kerasft_that_knows_models(made, tmp_path):
    write_facts(made / "saved", ExportFacts("saved-model", None, NAMES, InputRule(32)))
    # Pixels, because it takes seconds until TensorFlow has prepared what decodes files.
    np.save(tmp_path / parity.PIXELS, np.zeros((1, 32, 32, 3), np.float32))
    task = {
        "format": "saved-model",
        "takes": "pixels",
        "inputs": [str(tmp_path / "photo.jpg")],
        "rule": InputRule(32).to_json(),
    }
    (tmp_path / "task.json").write_text(json.dumps(task))
    code = (
        "import sys\nfrom kerasft.export import parity\n"
        f"parity.main('export', {str(made / 'saved')!r}, {str(tmp_path)!r})\n"
        "print(sorted(name for name in sys.modules if name.startswith('kerasft.')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == (
        "['kerasft.errors', 'kerasft.export', 'kerasft.export.facts', 'kerasft.export.formats', "
        "'kerasft.export.parity', "
        "'kerasft.export.savedmodel', 'kerasft.export.scorer', 'kerasft.input_rule', "
        "'kerasft.lazy_tensorflow', 'kerasft.processes', 'kerasft.progress', 'kerasft.results',"
        " 'kerasft.untrusted']\n"
    )
    with np.load(tmp_path / "export.npz") as written:
        assert written["scores_files_1"].shape == (1, 3)


def test_sides_that_agree_pass_with_differences_of_0():
    assert parity.compare(*sides(), NAMES) == Proof(4, 0.0, 0.0, 1.0)


@pytest.mark.parametrize("name", ["scores_files_1", "scores_files_7", "scores_noise_7"])
@pytest.mark.parametrize("error", [1.1e-4, -1.1e-4, np.nan])
def test_one_score_that_is_off_by_more_than_the_limit_is_refused(name, error):
    export, reference = sides()
    export[name][2, 1] += error
    with pytest.raises(UserError, match="does not agree"):
        parity.compare(export, reference, NAMES)


def test_the_largest_differences_of_scores_and_logits_are_reported():
    export, reference = sides()
    export["scores_noise_1"][0, 0] += 9e-5
    export["logits_files_7"][3, 2] -= 8e-5
    result = parity.compare(export, reference, NAMES)
    assert result.max_abs_diff == pytest.approx(9e-5)
    assert result.max_abs_diff_logits == pytest.approx(8e-5)
    export["answered_7"][1, 1] -= 9e-5
    assert parity.compare(export, reference, NAMES).max_abs_diff_logits == pytest.approx(9e-5)


@pytest.mark.parametrize("name", ["answered_1", "answered_7", "logits_files_1", "logits_noise_7"])
@pytest.mark.parametrize("error", [0.021, -0.021, np.nan])
def test_a_logit_that_is_off_by_more_than_a_share_of_the_largest_is_refused(name, error):
    export, reference = sides()
    for side in (export, reference):
        side["logits_files_1"][0, 0] = side["logits_files_7"][0, 0] = -200  # 1e-4 of it: 0.02
    export["answered_1"][0, 0] = export["answered_7"][0, 0] = -200
    parity.compare(export, reference, NAMES)  # the control
    export[name][2, 1] += error
    with pytest.raises(UserError, match=r"logits by (0\.021|nan) \(allowed: 0\.02\)"):
        parity.compare(export, reference, NAMES)


def with_scores(change):
    """Sides of an int8 export: scores alone, changed by a function of them and the batch size."""
    export, reference = sides()
    kept = {name: values for name, values in export.items() if "logits" not in name}
    kept = {name: kept[name] for name in kept if not name.startswith("answered")}
    for name in [name for name in kept if name.startswith("scores")]:
        kept[name] = change(kept[name], int(name[-1]))
    for size in (1, 7):
        del kept[f"top_label_{size}"], kept[f"top_score_{size}"]
    return kept, reference


def softened(scores, _):
    return 0.95 * scores + 0.05 / 3


def saturated(scores, _):
    return np.eye(3)[scores.argmax(axis=1)]


def right_at_one_size(scores, size):
    return scores if size == 1 else scores[:, ::-1]


def test_an_int8_export_may_move_scores_a_little():
    result = parity.compare(*with_scores(softened), NAMES, quantize="int8")
    assert 0.01 < result.max_abs_diff < 0.05 and result.top1_agreement == 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda scores, _: 0 * scores, "its scores of an image do not add up to 1"),
        (lambda scores, _: scores * np.nan, "does not agree with model.keras: scores of 4 images"),
        (lambda scores, _: scores - 0.5, "its scores do not lie between 0 and 1"),
        (lambda scores, _: 0 * scores + 0.9, "its scores of an image do not add up to 1"),
        (right_at_one_size, "an image gets other scores alone than together with others"),
        (saturated, r"scores differ by 0\.\d+ in the mean over 4 images \(allowed: 0\.1\)"),
    ],
)
def test_an_int8_export_whose_scores_are_none_is_refused_though_its_labels_may_be_right(
    change, said
):
    with pytest.raises(UserError, match=said):
        parity.compare(*with_scores(change), NAMES, quantize="int8")


def test_labels_in_another_order_are_refused():
    export, reference = sides()
    export["labels"] = np.array(["cross", "circle", "stripes"])
    with pytest.raises(UserError, match=r"labels are not the model's classes.*got cross, circle"):
        parity.compare(export, reference, NAMES)


@pytest.mark.parametrize("name", ["top_label_7", "top_score_1"])
def test_a_best_label_or_score_that_is_not_the_best_is_refused(name):
    export, reference = sides()
    export[name] = np.roll(export[name], 1)
    with pytest.raises(UserError, match="does not agree"):
        parity.compare(export, reference, NAMES)


def test_a_format_that_answers_with_scores_alone_is_judged_by_them():
    export, reference = sides()
    left_out = ("top", "answered")
    without = {name: values for name, values in export.items() if not name.startswith(left_out)}
    assert parity.compare(without, reference, NAMES).max_abs_diff == 0.0


def test_generated_images_are_of_every_kind_that_is_named():
    generated = parity.generated_images()
    assert list(generated) == [
        "exif_1.jpg", "exif_2.jpg", "exif_3.jpg", "exif_4.jpg", "exif_5.jpg", "exif_6.jpg",
        "exif_7.jpg", "exif_8.jpg", "gray.jpg", "alpha.png", "palette.gif",
    ]  # fmt: skip
    modes = {name: Image.open(io.BytesIO(encoded)).mode for name, encoded in generated.items()}
    assert (modes["exif_1.jpg"], modes["gray.jpg"]) == ("RGB", "L")
    assert (modes["alpha.png"], modes["palette.gif"]) == ("RGBA", "P")


@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_orientation_is_read_back_by_pillow_and_in_the_graph(orientation):
    encoded = parity.generated_images()[f"exif_{orientation}.jpg"]
    assert Image.open(io.BytesIO(encoded)).getexif()[0x0112] == orientation
    assert int(images.exif_orientation(tf.constant(encoded))) == orientation


def test_the_eight_orientations_show_eight_different_images():
    generated = parity.generated_images()
    shown = [
        images.resize_image(images.decode_image(generated[f"exif_{i}.jpg"]), 32, "stretch").numpy()
        for i in range(1, 9)
    ]
    gaps = [np.abs(a - b).mean() for i, a in enumerate(shown) for b in shown[:i]]
    assert min(gaps) > 5  # gray levels


def test_a_gif_decodes_to_its_palette():
    indices = np.arange(128 * 3, dtype=np.uint8).reshape(16, 24) % 128
    palette = np.random.default_rng(0).integers(0, 256, (128, 3)).astype(np.uint8)
    encoded = parity.encode_gif(indices, palette)
    np.testing.assert_array_equal(np.array(Image.open(io.BytesIO(encoded)).convert("RGB")),
                                  palette[indices])  # fmt: skip
    np.testing.assert_array_equal(tf.io.decode_gif(encoded)[0], palette[indices])


def test_noise_is_the_same_in_every_process():
    noise = parity.noise_pixels(32)
    assert (noise.shape, noise.dtype) == ((8, 32, 32, 3), np.float32)
    assert 0 <= noise.min() < 1 and 254 < noise.max() <= 255
    # The first draw of NumPy's default_rng(0), which is stable by its documentation, times 255.
    assert noise[0, 0, 0, 0] == pytest.approx(0.6369616873 * 255)


@pytest.mark.parametrize("wrong", [None, "missing", "other", "uncalled for"])
def test_an_export_must_abstain_below_the_threshold_and_only_there(wrong):
    export, reference = sides()
    for size in parity.BATCH_SIZES:
        scores = export[f"scores_files_{size}"].max(axis=1)
        export[f"abstain_{size}"] = scores < 0.5
    threshold = None if wrong == "uncalled for" else 0.5
    if wrong == "missing":
        del export["abstain_7"]
    if wrong == "other":
        export["abstain_1"] = ~export["abstain_1"]
    if wrong is None:
        assert parity.compare(export, reference, NAMES, threshold).n == 4
        return
    with pytest.raises(UserError, match="abstains on other images"):
        parity.compare(export, reference, NAMES, threshold)
