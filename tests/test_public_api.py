"""The seven functions that `import kerasft` promises: loaded when used, typed, with examples."""

import ast
import doctest
import inspect
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from drawing import draw_photos

import kerasft
from kerasft.errors import UserError

PROMISED = [
    "compare_ways",
    "continue_run",
    "evaluate_run",
    "export_run",
    "load_config",
    "predict",
    "train_run",
]
PAGE = Path(kerasft.__file__)


def test_these_are_promised_and_no_more():
    assert kerasft.__all__ == PROMISED
    assert set(PROMISED) < set(dir(kerasft))
    for name in PROMISED:
        function = getattr(kerasft, name)
        assert (function.__name__, inspect.isfunction(function)) == (name, True)
        assert inspect.getdoc(function)
    with pytest.raises(AttributeError, match="module 'kerasft' has no attribute 'train'"):
        _ = kerasft.train


def test_type_checkers_see_the_same_functions_in_the_same_places():
    tree = ast.parse(PAGE.read_text("utf-8"))
    checked = next(node for node in tree.body if isinstance(node, ast.If))
    assert ast.unparse(checked.test) == "TYPE_CHECKING"
    seen = {
        alias.name: node.module
        for node in checked.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert sorted(seen) == PROMISED
    assert (PAGE.parent / "py.typed").is_file()  # or they would not look at an installed package
    assert seen == {name: getattr(kerasft, name).__module__ for name in PROMISED}


def test_importing_the_package_loads_the_standard_library_alone():
    code = (
        "import sys; before = set(sys.modules); import kerasft; dir(kerasft)\n"
        "names = {name.partition('.')[0] for name in set(sys.modules) - before}\n"
        "print(sorted(names - set(sys.stdlib_module_names)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=PAGE.parent.parent, capture_output=True, text=True
    )
    assert done.stdout == "['kerasft']\n"


def test_the_examples_of_the_page_run(tiny_backbone, tmp_path, monkeypatch):
    draw_photos(tmp_path / "photos")
    shutil.copy(next((tmp_path / "photos" / "cross").iterdir()), tmp_path / "new.jpg")
    monkeypatch.chdir(tmp_path)
    # The examples as they stand, but on a net that is trained in a second.
    sample = '"model.weights": "sample"'
    tiny = '"model.weights": "none", "model.backbone": "Tiny", "model.image_size": 32'
    page = inspect.getdoc(kerasft)
    assert page.count(sample) == 2
    page = page.replace(sample, tiny)
    page = page.replace('["phases.0.epochs=5"]', '["phases.0.epochs=2", "phases.0.blocks=0"]')
    # The proof of a SavedModel takes half a minute; test_savedmodel.py has it.
    assert page.count('to="served"') == 1
    page = page.replace('to="served"', 'to="served", format="keras"')
    examples = doctest.DocTestParser().get_doctest(page, {}, "kerasft", None, None)
    said: list[str] = []
    runner = doctest.DocTestRunner(verbose=False)  # or it reads pytest -v
    runner.run(examples, out=said.append, clear_globs=False)
    assert (runner.failures, said) == (0, [])
    names = examples.globs
    called = {line.partition("kerasft.")[2].partition("(")[0] for line in page.splitlines()}
    assert set(PROMISED) <= called
    assert [phase.name for phase in names["result"].phases] == ["head", "unfreeze"]
    assert names["report"].n == 6
    assert [Path(one.file).name for one in names["answers"][-2:]] == [
        "circle-011.jpg",
        "new.jpg",
    ]
    assert (tmp_path / "served" / "1" / "parity.json").is_file()
    assert sorted(row.way for row in names["compared"].ways) == ["knn", "lda"]


def test_a_path_may_be_a_text(tmp_path, monkeypatch):
    (tmp_path / "mine.toml").write_text('[data]\nsource = "photos"\n')
    config = kerasft.load_config(str(tmp_path / "mine.toml"), flags={"seed": 3})
    assert (config.data.source, config.seed) == (str(tmp_path / "photos"), 3)
    for use in (kerasft.continue_run, kerasft.export_run):
        with pytest.raises(UserError, match="no such directory"):
            use(str(tmp_path / "absent"))
