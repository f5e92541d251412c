"""The page of `kerasft serve`, used in headless Chromium as people use it."""

import base64
import csv
import io
import json
import shutil
import subprocess
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from chromium import Chromium, browser
from encoded import encode
from PIL import Image
from served import exported, serving
from small_run import small_bundle, small_run

from kerasft.confidence import Abstention
from kerasft.models import bundle
from kerasft.serving.limits import Limits

pytestmark = pytest.mark.skipif(browser() is None, reason="needs Chromium: apt install chromium")

LONG = "a label of so many words that no phone shows all of them in a single line"
NAMES = ("moss", "<script>document.title = 'bad'</script>", "sand", "brick", "ash", "rust", LONG)
TOKEN = "a-token-of-the-tests"
COLORS = {"green": (20, 240, 40), "blue": (30, 40, 230), "red": (250, 20, 30)}
GREEN = ["moss 95.0%", f"{LONG} 3.9%", "ash 0.8%", f"{NAMES[1]} 0.3%", "rust under 0.1%"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of 7 classes that knows its answer to plain colours, and not to gray."""
    run = small_run(tmp_path_factory.mktemp("served"))
    abstention = Abstention(0.9, 0.6, 0.8, 0.95, 0.9, 40)
    opened = replace(small_bundle(NAMES), abstention=abstention)
    bundle.save(opened, run / "model.keras")
    exported(run)
    return run


@pytest.fixture(scope="module")
def url(run, tmp_path_factory):
    file = tmp_path_factory.mktemp("token") / "token"
    file.write_text(TOKEN)
    file.chmod(0o600)
    limits = Limits(body=100_000)
    with serving(run, name="colors", limits=limits, token_file=file) as server:
        yield server.url


@pytest.fixture(scope="module")
def chromium():
    with Chromium() as chromium:
        yield chromium


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Files by name: plain colours, gray, one that no browser shows, and two bad ones."""
    folder = tmp_path_factory.mktemp("files")

    def plain(color):
        return Image.new("RGB", (60, 40), color)

    for name, color in COLORS.items():
        (folder / f"{name}.png").write_bytes(encode(plain(color), "PNG"))
    (folder / "gray.png").write_bytes(encode(plain((128, 128, 128)), "PNG"))
    (folder / "green.tif").write_bytes(encode(plain(COLORS["green"]), "TIFF"))
    (folder / "notes.jpg").write_text("no image")
    (folder / "large.jpg").write_bytes(bytes(240_000))
    return {path.name: path for path in folder.iterdir()}


@pytest.fixture
def page(chromium, url):
    """The page, opened with the token; what it complains of, or asks others for, fails the test."""
    with chromium.tab() as tab:
        script = f"sessionStorage.setItem('kerasft-token', '{TOKEN}')"
        tab.call("Page.addScriptToEvaluateOnNewDocument", source=script)
        tab.open(url)
        tab.wait("facts.textContent")
        yield tab
        asked = {one["request"]["url"] for one in tab.events("Network.requestWillBeSent")}
        assert {one for one in asked if not one.startswith((url, "data:", "blob:"))} == set()
        assert tab.events("Runtime.exceptionThrown") == []
        logged = [one["entry"] for one in tab.events("Log.entryAdded")]
        # The browser itself writes a line for each answer of 400 and more.
        assert [one for one in logged if one["source"] != "network"] == []


def text(tab, selector):
    return tab.evaluate(f"document.querySelector({selector!r}).innerText.trim()")


def bars(tab):
    tab.wait("document.querySelector('#bars li') && one.ariaBusy === 'false'")
    words = "[...li.querySelectorAll('.label, .score')].map((part) => part.textContent).join(' ')"
    return tab.evaluate(f"[...document.querySelectorAll('#bars li')].map((li) => {words})")


def table(tab):
    """Returns the cells of the table, once all photos are done."""
    tab.wait("working.hidden")
    cells = "[...tr.cells].slice(1).map((cell) => cell.innerText.trim())"
    return tab.evaluate(f"[...document.querySelectorAll('#rows tr')].map((tr) => {cells})")


def click(tab, name):
    """Clicks the visible button with this text."""
    found = f"(b) => b.innerText.trim() === {name!r} && b.checkVisibility()"
    tab.evaluate(f"[...document.querySelectorAll('button')].find({found}).click()")


# One photo


def test_the_page_says_what_is_served(page):
    assert page.evaluate("document.title") == "colors · kerasft"
    assert text(page, "h1") == "colors"
    assert text(page, "#facts") == (
        "Version 1 · SavedModel · 7 classes · sees 32 by 32 pixels · "
        "says “I don't know” below 60.0%"
    )
    assert text(page, "#few-classes") == ", ".join(NAMES)
    assert not page.evaluate("document.querySelector('#token-form').checkVisibility()")


def test_a_photo_gets_its_label_and_a_bar_with_the_score_of_each(page, files):
    page.choose("#files", [files["green.png"]])
    assert bars(page) == GREEN
    assert (text(page, "#verdict"), text(page, "#explained")) == ("moss", "Score 95.0%")
    assert text(page, "#said") == "green.png: moss, 95.0%."
    assert page.evaluate("[picture.alt, picture.naturalWidth]") == ["green.png", 60]
    widths = page.evaluate(
        "[...document.querySelectorAll('.fill')].map((fill) => fill.getBoundingClientRect().width"
        " / fill.parentElement.getBoundingClientRect().width)"
    )
    assert widths == pytest.approx([0.950, 0.039, 0.008, 0.003, 0], abs=0.002)


def test_all_labels_are_shown_if_they_are_asked_for(page, files):
    page.choose("#files", [files["green.png"]])
    assert bars(page) == GREEN
    click(page, "Show all 7 labels")
    page.wait("document.querySelectorAll('#bars li').length === 7")
    assert bars(page)[:5] == GREEN
    assert not page.evaluate("document.querySelector('#all').checkVisibility()")
    assert page.evaluate("document.activeElement.id") == "verdict"


def test_all_labels_come_with_the_doubts_of_the_version_that_gave_them(page, files):
    page.choose("#files", [files["green.png"]])
    bars(page)
    with held(page, "*/page/predict?labels=all") as paused:
        click(page, "Show all 7 labels")
        labels = [{"label": name, "score": 1 / 7} for name in NAMES]
        newer = {"labels": labels, "abstain": True, "novel": True, "error": ""}
        reply(page, paused(1)[0], 200, newer)
        page.wait("document.querySelectorAll('#bars li').length === 7")
    assert text(page, "#verdict") == "I don't know"
    assert page.evaluate("unlike.checkVisibility()")


def test_the_name_of_a_class_is_never_html(page, files):
    page.choose("#files", [files["blue.png"]])
    bars(page)
    assert text(page, "#verdict") == "<script>document.title = 'bad'</script>"
    assert page.evaluate("document.title") == "colors · kerasft"


def test_a_heat_map_lies_over_the_photo_until_it_is_switched_off(page, files):
    page.choose("#files", [files["green.png"]])
    bars(page)
    click(page, "Heat map")
    page.wait("heat.ariaPressed === 'true' && picture.complete && picture.naturalWidth === 32")
    assert page.evaluate("picture.alt") == "Heat map of green.png for moss"
    assert text(page, "#heat-note").startswith("Yellow places speak most for moss")
    page.evaluate(
        "document.querySelector('#heat-of').value = 'ash';"
        "document.querySelector('#heat-of').dispatchEvent(new Event('change'))"
    )
    page.wait("document.querySelector('#heat-note').textContent.includes('ash')")
    asked = [one["request"]["url"] for one in page.events("Network.requestWillBeSent")]
    assert [one.partition("/page/explain")[2] for one in asked if "explain" in one] == [
        "?label=moss",
        "?label=ash",
    ]
    click(page, "Heat map")
    page.wait("heat.ariaPressed === 'false' && picture.complete && picture.naturalWidth === 60")
    assert text(page, "#heat-note") == ""


def test_a_model_that_does_not_know_says_so(page, files):
    page.choose("#files", [files["gray.png"]])
    bars(page)
    assert text(page, "#verdict") == "I don't know"
    assert text(page, "#explained") == (
        "The best guess is rust, with a score of 15.0%. Below 60.0% this model does not answer."
    )
    assert text(page, "#said") == "gray.png: I don't know. The best guess is rust, 15.0%."


def test_a_photo_unlike_the_training_photos_is_called_so(page, files):
    answer = {"labels": [{"label": "moss", "score": 0.97}], "abstain": False, "novel": True}
    with held(page, "*/page/predict*") as paused:
        page.choose("#files", [files["green.png"]])
        reply(page, paused(1)[0], 200, answer)
    bars(page)
    assert page.evaluate("unlike.checkVisibility()")
    assert text(page, "#unlike").startswith("Unlike the training photos.")
    assert text(page, "#said") == "green.png: moss, 97.0%. Unlike the training photos."
    page.choose("#files", [files["red.png"]])
    page.wait("verdict.textContent === 'rust'")
    assert not page.evaluate("unlike.checkVisibility()")


def test_a_photo_that_the_browser_cannot_show_is_answered(page, files):
    page.choose("#files", [files["green.tif"]])
    assert bars(page) == GREEN
    page.wait("document.querySelector('#no-picture').checkVisibility()")


# Several photos


def test_several_photos_make_a_table_in_their_order(page, files):
    page.choose("#files", [files[f"{name}.png"] for name in ("red", "gray", "green", "blue")])
    assert table(page) == [
        ["red.png", "rust", "69.2%", ""],
        ["gray.png", "rust", "15.0%", "I don't know"],
        ["green.png", "moss", "95.0%", ""],
        ["blue.png", NAMES[1], "99.9%", ""],
    ]
    assert text(page, "#count") == "4 photos, 1 “I don't know”"
    assert text(page, "#said") == "Done: 4 photos, 1 “I don't know”."
    thumbs = page.wait(
        "[...document.querySelectorAll('.thumb img')].every((one) => one.complete)"
        " && [...document.querySelectorAll('.thumb img')].map((one) => one.naturalWidth)"
    )
    assert thumbs == [60, 60, 60, 60]


def test_the_table_is_a_csv_file_too(page, files, tmp_path):
    formula = shutil.copy(files["red.png"], tmp_path / '=1+1, "red".png')
    page.choose("#files", [files["gray.png"], Path(formula), files["notes.jpg"]])
    table(page)
    folder = tmp_path / "downloads"
    folder.mkdir()
    page.download_to(folder)
    click(page, "Download as CSV")
    to = folder / "colors-labels.csv"
    end = time.monotonic() + 10
    while not to.is_file() and time.monotonic() < end:
        time.sleep(0.02)
    content = to.read_bytes()
    assert content.startswith(b"\xef\xbb\xbfpath,")
    rows = list(csv.reader(io.StringIO(content.decode("utf-8-sig"))))
    scores = [float(rows[1].pop(2)), float(rows[2].pop(2))]
    assert scores == pytest.approx([0.1502, 0.6923], abs=2e-4)
    assert rows == [
        ["path", "predicted", "score", "abstain", "novel", "error"],
        ["gray.png", "rust", "true", "", ""],
        ['\'=1+1, "red".png', "rust", "false", "", ""],
        [
            "notes.jpg",
            "",
            "",
            "",
            "",
            "The file is not a JPEG, PNG, GIF, BMP or WebP image.",
        ],
    ]


def test_four_photos_are_asked_about_at_a_time_and_the_order_stays(page, files):
    names = ["red.png", "gray.png", "green.png", "blue.png", "red.png", "green.png"]
    with held(page, "*/page/predict*") as paused:
        page.choose("#files", [files[name] for name in names])
        for number, request in enumerate(reversed(paused(4))):
            page.call("Fetch.continueRequest", requestId=request)
            page.wait(f"progress.value === {number + 1}")
        paused(2)
        assert text(page, "#count") == "4 of 6 photos"
        click(page, "Cancel")
        rows = table(page)
    labels = [["rust", "69.2%"], ["rust", "15.0%"], ["moss", "95.0%"], [NAMES[1], "99.9%"]]
    assert [row[:3] for row in rows[:4]] == [
        [name, *one] for name, one in zip(names[:4], labels, strict=True)
    ]
    assert [row[1:] for row in rows[4:]] == [["", "", "Cancelled."]] * 2
    click(page, "Try 2 photos again")
    assert [row[1:] for row in table(page)[4:]] == [[*labels[0], ""], [*labels[2], ""]]


def test_a_row_opens_its_photo_and_the_way_back_leads_to_it(page, files):
    page.choose("#files", [files["red.png"], files["green.png"]])
    table(page)
    assert not page.evaluate("one.checkVisibility()")
    click(page, "green.png")
    assert bars(page) == GREEN
    assert page.evaluate("document.activeElement.id") == "verdict"
    click(page, "Back to the table")
    assert not page.evaluate("one.checkVisibility()")
    assert page.evaluate("document.activeElement.textContent") == "green.png"
    click(page, "Clear")
    assert page.evaluate("[several.checkVisibility(), document.activeElement.id]") == [
        False,
        "choose",
    ]


# Other ways in


def test_files_are_dropped_anywhere(page, files):
    page.evaluate("addEventListener('drop', (one) => { window.taken = one.defaultPrevented; })")
    page.drop("h1", files=[files["red.png"], files["green.png"]])
    assert [row[1] for row in table(page)] == ["rust", "moss"]
    assert page.evaluate("taken")  # or a browser would show the file instead of the page


def test_a_dropped_folder_is_looked_through(page, files, tmp_path):
    (tmp_path / "trip" / "day 1").mkdir(parents=True)
    shutil.copy(files["red.png"], tmp_path / "trip")
    shutil.copy(files["green.png"], tmp_path / "trip" / "day 1")
    (tmp_path / "trip" / ".DS_Store").write_text("hidden")
    page.drop("#drop", files=[tmp_path / "trip"])
    page.wait("count.textContent === '2 photos'")
    assert sorted(row[0] for row in table(page)) == ["trip/day 1/green.png", "trip/red.png"]


def test_the_address_of_a_picture_is_not_taken(page):
    page.drop("#drop", address="https://example.org/cat.jpg")
    page.wait("notice.checkVisibility()")
    assert text(page, "#notice") == (
        "Only files can be dropped here. Save the picture first, or copy the picture itself and "
        "paste it."
    )


def test_a_picture_is_pasted_and_a_text_is_not(page, files):
    paste = (
        "(parts) => { const data = new DataTransfer(); parts(data); document.body.dispatchEvent("
        "new ClipboardEvent('paste', { clipboardData: data, bubbles: true })); }"
    )
    page.evaluate(f"({paste})((data) => data.setData('text/plain', 'https://example.org/cat.jpg'))")
    assert text(page, "#notice").startswith("There is no picture in the clipboard.")
    encoded = base64.b64encode(files["green.png"].read_bytes()).decode()
    page.evaluate(
        f"({paste})((data) => data.items.add(new File([Uint8Array.from(atob('{encoded}'), (one) =>"
        " one.charCodeAt(0))], 'image.png', { type: 'image/png' })))"
    )
    assert bars(page) == GREEN
    assert not page.evaluate("notice.checkVisibility()")


# Errors


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("notes.jpg", "The file is not a JPEG, PNG, GIF, BMP or WebP image."),
        ("large.jpg", "The file has 0.2 MB. This server takes at most 0.1 MB."),
    ],
)
def test_a_bad_file_gets_a_sentence(page, files, name, said):
    page.choose("#files", [files[name]])
    page.wait("one.classList.contains('failed')")
    assert (text(page, "#verdict"), text(page, "#explained")) == ("No answer", said)
    assert text(page, "#said") == f"{name}: {said}"
    assert not page.evaluate("document.querySelector('#again-one').checkVisibility()")


def test_a_server_that_is_away_is_asked_again(page, files, tmp_path):
    file = Path(shutil.copy(files["green.png"], tmp_path))
    net = {"latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
    page.call("Network.emulateNetworkConditions", offline=True, **net)
    page.choose("#files", [file])
    page.wait("one.classList.contains('failed')")
    assert text(page, "#explained") == "The server does not answer. Is it still running?"
    page.call("Network.emulateNetworkConditions", offline=False, **net)
    click(page, "Try again")
    assert bars(page) == GREEN


def test_a_file_that_has_gone_is_told_from_a_server_that_has(page, files, tmp_path):
    file = Path(shutil.copy(files["green.png"], tmp_path))
    page.choose("#files", [file])
    bars(page)
    file.unlink()
    click(page, "Show all 7 labels")
    page.wait("notice.checkVisibility()")
    assert text(page, "#notice").startswith("The file can't be read.")


def test_a_busy_server_is_waited_for(page, files):
    with held(page, "*/page/predict*") as paused:
        page.choose("#files", [files["green.png"]])
        reply(page, paused(1)[0], 503, {"error": "Too much waits."})
        paused(1)  # after the second that Retry-After says
    assert bars(page) == GREEN


# A token


def test_a_token_is_asked_for_and_used_and_kept_in_the_tab(chromium, url, files):
    visible = "document.querySelector('#token-form').checkVisibility()"
    why = "document.querySelector('#token-why').textContent"
    with chromium.tab() as tab:
        tab.open(url)
        tab.wait(visible)
        sent = tab.events("Network.requestWillBeSent")[-1]["request"]
        assert (sent["url"], sent["headers"].get("Authorization")) == (f"{url}/page/about", None)
        assert text(tab, "h1") == "kerasft"  # nothing of the model is told
        assert tab.evaluate("document.activeElement.id") == "token"
        tab.choose("#files", [files["green.png"]])  # it waits
        for given in ("wrong-token", "wrong\N{BALLOT X}"):
            tab.evaluate(f"document.querySelector('#token').value = ''; {why} = ''")
            tab.type(given)
            tab.press("Enter")
            tab.wait(f"{visible} && {why} === 'That is not the right one.'")
        assert tab.evaluate("document.querySelector('#token').ariaInvalid") == "true"
        tab.evaluate("document.querySelector('#token').value = ''")
        tab.type(TOKEN)
        tab.press("Enter")
        assert bars(tab) == GREEN
        assert tab.evaluate(f"[{visible}, document.activeElement.id]") == [False, "choose"]
        assert tab.evaluate("[sessionStorage.length, localStorage.length, document.cookie]") == [
            1,
            0,
            "",
        ]
        assert TOKEN not in tab.evaluate("document.documentElement.outerHTML")
        tab.open(url)
        tab.wait("facts.textContent")
        assert not tab.evaluate(visible)


def test_an_export_without_heat_maps_offers_none(page, files):
    about = page.evaluate(
        f"fetch('page/about', {{ headers: {{ Authorization: 'Bearer {TOKEN}' }} }})"
        ".then((answer) => answer.json())"
    )
    with held(page, "*/page/about") as paused:
        page.choose("#files", [files["green.png"]])
        reply(page, paused(1)[0], 200, {**about, "explains": False})
    assert bars(page) == GREEN
    page.wait("!heat.checkVisibility()", seconds=5)


# From a program


def test_the_commands_for_programs_work_as_they_are(page, files, tmp_path):
    page.evaluate("program.open = true")
    short, rest = text(page, "#short"), text(page, "#rest")
    assert json.loads(shell(short, files, tmp_path))["labels"][0]["label"] == "moss"
    [row] = json.loads(shell(rest, files, tmp_path))["predictions"]
    assert row["top_label"] == "moss"
    assert text(page, "#token-hint") == "$TOKEN is the token that the server wants."


def test_commands_are_copied_by_buttons_with_names_of_their_own(page):
    page.evaluate("program.open = true")
    copies = [name for name in names(page)["button"] if name.startswith("Cop")]
    assert copies == ["Copy the command for one photo", "Copy the command for many photos"]
    page.evaluate("navigator.clipboard.writeText = async (text) => { window.copied = text; }")
    click(page, "Copy")
    page.wait("window.copied === short.textContent")
    assert "Copied the command for one photo" in names(page)["button"]
    page.evaluate("navigator.clipboard.writeText = () => Promise.reject(new Error('not allowed'))")
    click(page, "Copy")  # the other one, while the first says "Copied"
    page.wait("notice.checkVisibility()")
    assert text(page, "#notice").startswith("This browser does not let the page copy.")


def shell(command, files, folder):
    if shutil.which("curl") is None:
        pytest.skip("needs curl")
    shutil.copy(files["green.png"], folder / "photo.jpg")
    done = subprocess.run(
        ["sh", "-c", command],
        cwd=folder,
        env={"PATH": "/usr/bin:/bin", "TOKEN": TOKEN},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


# For everybody


def test_the_keyboard_is_enough(page, files):
    page.call("Page.setInterceptFileChooserDialog", enabled=True)
    focus_on(page, "choose")
    page.press("Enter")
    chooser = page.event("Page.fileChooserOpened")
    page.call(
        "DOM.setFileInputFiles",
        files=[str(files["green.png"]), str(files["gray.png"])],
        backendNodeId=chooser["backendNodeId"],
    )
    table(page)
    for target, name in [("csv", "Download as CSV"), ("clear", "Clear"), ("", "green.png")]:
        page.press("Tab")
        assert page.evaluate("document.activeElement.id") == target
        assert page.evaluate("document.activeElement.innerText") == name
    page.press("Enter")
    assert bars(page) == GREEN
    page.press("Tab")
    assert page.evaluate("document.activeElement.id") == "heat"
    page.press(" ")
    page.wait("heat.ariaPressed === 'true'")
    for target in ("heat-of", "all", "close"):
        page.press("Tab")
        assert page.evaluate("document.activeElement.id") == target
        outline = "getComputedStyle(document.activeElement).outline"
        assert page.evaluate(outline) == "rgb(31, 111, 180) solid 3px"
    page.press("Enter")
    assert page.evaluate("document.activeElement.innerText") == "green.png"
    focus_on(page, "program", inside=True)


def focus_on(tab, name, *, inside=False):
    """Presses Tab until the focus is on an element, or in it."""
    this = "document.activeElement.parentElement.id" if inside else "document.activeElement.id"
    for _ in range(20):
        if tab.evaluate(this) == name:
            return
        tab.press("Tab")
    raise AssertionError(f"{name} is not reached")


def use(tab, files):
    """Brings the page into three states, one after the other; yields the name of each."""
    yield "empty"
    tab.choose("#files", [files["green.png"]])
    bars(tab)
    click(tab, "Heat map")
    tab.wait("heat.ariaPressed === 'true'")
    tab.evaluate("program.open = true")
    yield "photo"
    tab.choose("#files", [files["gray.png"], files["blue.png"], files["notes.jpg"]])
    table(tab)
    yield "table"
    click(tab, "notes.jpg")
    tab.drop("#drop", address="https://example.org/cat.jpg")
    tab.wait("notice.checkVisibility()")
    yield "error"
    click(tab, "gray.png")
    yield "unsure"


def test_everything_that_is_used_has_a_name(page, files):
    for state in use(page, files):
        assert (state, names(page)[""]) == (state, [])
    found = names(page)
    assert found["combobox"] == ["Heat map for the class"]
    assert {"button", "combobox", "table", "image", "rowheader", "region"} <= set(found)
    with held(page, "*/page/predict*") as paused:
        page.choose("#files", [files["red.png"]] * 2)
        paused(2)
        found = names(page)
    assert (found["progressbar"], found[""]) == (["Photos that are done"], [])


def names(tab):
    """Returns what a screen reader calls the elements of each role; "" lists the nameless."""
    roles = ("button", "textbox", "combobox", "progressbar", "table", "image", "region", "list")
    found = {"": []}
    for node in tab.call("Accessibility.getFullAXTree")["nodes"]:
        role, name = (node.get(key, {}).get("value", "") for key in ("role", "name"))
        found.setdefault(role, []).append(name)
        if role in roles and not name and not node["ignored"]:
            found[""].append(role)
    return found


@pytest.mark.parametrize("touch", [False, True])
def test_a_phone_need_not_scroll_sideways(page, files, url, touch):
    page.look(390, 844, touch=touch)
    page.open(url)
    for state in use(page, files):
        size = "[document.documentElement.scrollWidth, innerWidth]"
        assert (state, page.evaluate(size)) == (state, [390, 390])
    assert page.evaluate("photograph.checkVisibility()") == touch


def test_a_phone_takes_a_photo(page, files):
    page.look(390, 844, touch=True)
    page.call("Page.setInterceptFileChooserDialog", enabled=True)
    focus_on(page, "photograph")
    page.press("Enter")  # a click by script would open nothing
    assert page.event("Page.fileChooserOpened")["mode"] == "selectSingle"
    assert (
        page.evaluate("document.querySelector('#camera').getAttribute('capture')") == "environment"
    )
    page.choose("#camera", [files["green.png"]])
    assert bars(page) == GREEN


@pytest.mark.parametrize(
    ("dark", "ground"), [(False, "rgb(255, 255, 255)"), (True, "rgb(21, 23, 26)")]
)
def test_text_stands_out_in_light_and_in_dark(page, files, dark, ground):
    page.look(1280, 900, dark=dark)
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == ground
    for state in use(page, files):
        low = [one for one in page.evaluate(CONTRASTS) if one[0] < 4.5]
        assert (state, low) == (state, [])


def test_the_contrast_of_text_is_measured(page):
    page.evaluate("document.querySelector('h1').style.color = '#999'")
    low = [one for one in page.evaluate(CONTRASTS) if one[0] < 4.5]
    assert [words for _, words in low] == ["colors"]  # the control: 2.85


def test_nothing_moves_for_those_who_want_it_calm(page):
    moves = "getComputedStyle(document.querySelector('#drop')).transitionDuration"
    assert page.evaluate(moves) == "0s"
    page.look(1280, 900, calm=False)
    assert page.evaluate(moves) != "0s"  # the control


def test_without_javascript_the_page_says_what_is_missing(chromium, url):
    with chromium.tab() as tab:
        tab.call("Emulation.setScriptExecutionDisabled", value=True)
        tab.open(url)
        assert "This page needs JavaScript." in text(tab, "main")


CONTRASTS = """(() => {
  const context = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const over = (colors) => { // the colours of a pixel that they cover, the last one on top
    for (const color of colors) { context.fillStyle = color; context.fillRect(0, 0, 1, 1); }
    return [...context.getImageData(0, 0, 1, 1).data].slice(0, 3);
  };
  const light = (rgb) => rgb.map((part) => part / 255).map((part) =>
    part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4
  ).reduce((sum, part, i) => sum + part * [0.2126, 0.7152, 0.0722][i], 0);
  const words = (one) => [...one.childNodes].filter((node) => node.nodeType === 3)
    .map((node) => node.textContent.trim()).join("");
  return [...document.body.querySelectorAll("*")]
    .filter((one) => words(one) && one.checkVisibility() && !one.closest(".aside, thead .aside"))
    .map((one) => {
      const grounds = [];
      for (let at = one; at; at = at.parentElement) {
        grounds.unshift(getComputedStyle(at).backgroundColor);
      }
      const ground = over(grounds), ink = over([...grounds, getComputedStyle(one).color]);
      const [low, high] = [light(ground), light(ink)].sort((a, b) => a - b);
      return [(high + 0.05) / (low + 0.05), words(one)];
    });
})()"""


@contextmanager
def held(tab, pattern):
    """Holds requests with this address until the block ends, when all go on.

    Yields:
        A function that waits for so many more of them, and returns their ids.
    """
    tab.call("Fetch.enable", patterns=[{"urlPattern": pattern}])
    given = []

    def paused(count):
        end = time.monotonic() + 10
        while len(new := ids()) < count and time.monotonic() < end:
            tab.evaluate("new Promise((done) => setTimeout(done, 20))")
        tab.evaluate("new Promise((done) => setTimeout(done, 100))")
        new = ids()
        assert len(new) == count
        given.extend(new)
        return new

    def ids():
        all_ids = [one["requestId"] for one in tab.events("Fetch.requestPaused")]
        return [one for one in all_ids if one not in given]

    try:
        yield paused
    finally:
        tab.call("Fetch.disable")


def reply(tab, request, status, answer):
    """Answers a held request in the server's place."""
    body = base64.b64encode(json.dumps(answer).encode()).decode()
    tab.call("Fetch.fulfillRequest", requestId=request, responseCode=status, body=body)
