"""What the page asks for: about, predict and explain, of a run and of an export."""

import io
import json
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from encoded import PHOTO, blocks, encode
from PIL import Image
from served import ask, exported, exported_run, serving
from small_run import NAMES, small_bundle, small_run

from kerasft.models import bundle
from kerasft.pixels import convert
from kerasft.serving import insight


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return exported_run(tmp_path_factory.mktemp("served"))


@pytest.fixture(scope="module")
def url(run):
    with serving(run) as server:
        yield server.url


def test_the_page_is_sent_with_headers_that_keep_everything_else_out(url):
    got = httpx.get(f"{url}/")
    assert got.status_code == 200
    assert got.headers["content-type"] == "text/html; charset=utf-8"
    assert got.headers["content-security-policy"].startswith("default-src 'self';")
    assert got.headers["x-content-type-options"] == "nosniff"
    assert "server" not in got.headers


@pytest.mark.parametrize(
    ("name", "kind"), [("page.css", "text/css"), ("page.js", "text/javascript")]
)
def test_its_files_are_sent(url, name, kind):
    got = httpx.get(f"{url}/page/{name}")
    assert (got.status_code, got.headers["content-type"]) == (200, f"{kind}; charset=utf-8")


def test_about_says_what_is_served(url):
    assert httpx.get(f"{url}/page/about").json() == {
        "name": "run",
        "version": 1,
        "format": "SavedModel",
        "classes": ["circle", "cross", "stripes"],
        "threshold": None,
        "explains": True,
        "image_size": 32,
        "largest_file": 32_000_000,
    }


def test_a_photo_gets_the_labels_that_the_rest_api_gives(url):
    got = httpx.post(f"{url}/page/predict", content=PHOTO)
    [row] = ask(f"{url}/v1/models/run:predict", PHOTO).json()["predictions"]
    said = got.json()
    assert got.status_code == 200
    assert (said["abstain"], said["novel"], said["error"]) == (None, None, "")
    assert {one["label"]: one["score"] for one in said["labels"]} == dict(
        zip(NAMES, row["scores"], strict=True)
    )
    scores = [one["score"] for one in said["labels"]]
    assert scores == sorted(scores, reverse=True)


def test_five_labels_are_given_and_all_if_they_are_asked_for(tmp_path):
    run = small_run(tmp_path)
    bundle.save(small_bundle(tuple("abcdefg")), run / "model.keras")
    exported(run)
    with serving(run) as server:
        best = httpx.post(f"{server.url}/page/predict", content=PHOTO).json()["labels"]
        every = httpx.post(f"{server.url}/page/predict?labels=all", content=PHOTO).json()["labels"]
    assert (len(best), len(every)) == (5, 7)
    assert every[:5] == best
    assert sorted(one["label"] for one in every) == list("abcdefg")


def test_a_photo_that_only_kerasft_converts_is_answered_too(url):
    got = httpx.post(f"{url}/page/predict", content=encode(blocks(), "TIFF"))
    assert (got.status_code, len(got.json()["labels"])) == (200, 3)


@pytest.mark.parametrize("path", ["predict", "explain"])
@pytest.mark.parametrize("kind", ["TIFF", "JPEG2000", "JPEG"])
def test_a_photo_is_not_kept(url, tmp_path, monkeypatch, path, kind):
    monkeypatch.setenv("KERASFT_CACHE", str(tmp_path / "cache"))
    got = httpx.post(f"{url}/page/{path}", content=encode(blocks(), kind), timeout=30)
    assert got.status_code == 200
    assert list(tmp_path.rglob("*")) == []


@pytest.mark.parametrize("path", ["predict", "explain"])
@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "The file is empty."),
        (b"hello", "The file is not a JPEG, PNG, GIF, BMP or WebP image."),
        (PHOTO[:-40], "The file is truncated."),
    ],
)
def test_a_file_that_is_no_image_is_refused_with_the_reason(url, path, body, said):
    got = httpx.post(f"{url}/page/{path}", content=body, timeout=30)
    assert (got.status_code, got.json()) == (400, {"error": said})


def test_a_photo_of_a_run_is_explained_by_a_picture_of_the_models_size(url):
    got = httpx.post(f"{url}/page/explain?label=cross", content=PHOTO)
    assert (got.status_code, got.headers["content-type"]) == (200, "image/png")
    assert Image.open(io.BytesIO(got.content)).size == (32, 32)


def test_an_unknown_class_is_refused(url):
    got = httpx.post(f"{url}/page/explain?label=cros", content=PHOTO)
    assert got.status_code == 404
    assert got.json() == {"error": "There is no class 'cros'. Did you mean 'cross'?"}


def test_an_export_has_no_pictures(run):
    with serving(run / "export") as server:
        assert server.name == "run"
        assert httpx.get(f"{server.url}/page/about").json()["explains"] is False
        got = httpx.post(f"{server.url}/page/explain", content=PHOTO)
    assert got.status_code == 404
    assert got.json()["error"].startswith("An export has no gradients")


def test_a_version_that_names_no_model_has_no_pictures_which_could_be_of_another(run, tmp_path):
    old = Path(shutil.copytree(run, tmp_path / "old"))
    facts = old / "export" / "1" / "kerasft.json"
    digest = json.loads(facts.read_text("utf-8"))["model_digest"]
    assert digest
    facts.write_text(facts.read_text("utf-8").replace(digest, ""))
    with serving(old) as server:
        got = httpx.post(f"{server.url}/page/explain", content=PHOTO, timeout=30)
        assert httpx.post(f"{server.url}/page/predict", content=PHOTO).status_code == 200
    assert got.status_code == 404
    assert got.json()["error"].startswith("This version does not say of which model.keras it was")


def test_a_photo_that_is_converted_keeps_no_request_of_a_program_back(url, monkeypatch):
    begun, go_on, convert_now = threading.Event(), threading.Event(), convert._convert

    def slowly(encoded, kind):
        begun.set()
        assert go_on.wait(60)
        return convert_now(encoded, kind)

    monkeypatch.setattr(convert, "_convert", slowly)
    with ThreadPoolExecutor(1) as other:
        body = encode(blocks(), "TIFF")
        asked = other.submit(httpx.post, f"{url}/page/predict", content=body, timeout=60)
        assert begun.wait(20)
        try:
            assert ask(f"{url}/v1/models/run:predict", PHOTO).status_code == 200
            assert not asked.done()
        finally:
            go_on.set()
        assert asked.result().status_code == 200


def test_damaged_known_photos_do_not_keep_the_labels_back(run, url, caplog):
    (run / "known.keras").write_bytes(b"damaged")
    got = httpx.post(f"{url}/page/predict", content=PHOTO, timeout=30)
    (run / "known.keras").unlink()
    assert (got.status_code, got.json()["novel"]) == (200, None)
    assert "known.keras is damaged" in caplog.records[-1].getMessage()


def test_photos_too_many_to_compare_do_not_keep_the_labels_back(run, monkeypatch, caplog):
    monkeypatch.setattr(insight, "MOST_COMPARED", 0)
    (run / "known.keras").write_bytes(b"is not opened")
    with serving(run) as server:
        got = httpx.post(f"{server.url}/page/predict", content=PHOTO, timeout=30)
    (run / "known.keras").unlink()
    assert (got.status_code, got.json()["novel"], len(got.json()["labels"])) == (200, None, 3)
    assert caplog.records[-1].getMessage() == (
        "It is not known whether a photo is unlike the training photos: "
        "0 photos are being compared with the training photos. Try again."
    )
