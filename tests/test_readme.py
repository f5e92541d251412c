"""README.md and kerasft/README.md: how long they are, and that what they name is there."""

import ast
import re
from pathlib import Path

import pytest
from import_graph import modules_per_package, parse_modules

import kerasft
from kerasft.cli.main import main

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text("utf-8")
ARCHITECTURE = (ROOT / "kerasft" / "README.md").read_text("utf-8")


def test_readme_stays_under_320_lines():
    assert len(README.splitlines()) < 320


@pytest.mark.parametrize(("text", "folder"), [(README, "."), (ARCHITECTURE, "kerasft")])
def test_every_link_and_every_path_leads_to_a_file(text, folder):
    links = re.findall(r"\]\(([\w./-]+)\)", text)
    named = re.findall(r"(?<![\w/.])((?:\w+/)+\w+\.(?:py|md|toml|sh|txt))\b", text)
    inside = ROOT / folder
    missing = {
        path
        for path in [*links, *named]
        if not ((inside / path).is_file() or (ROOT / path).is_file())
    }
    assert missing - {"runs/insects/config.toml", "configs/mine.toml"} == set()


@pytest.mark.parametrize("text", [README, ARCHITECTURE], ids=["README", "kerasft/README"])
def test_every_package_is_named(text):
    packages = set(modules_per_package(parse_modules())) - {""}
    assert {name for name in packages if f"`{name}`" not in text} == set()


def test_every_recipe_is_named():
    recipes = {path.name for path in (ROOT / "configs").glob("*.toml")}
    assert {name for name in recipes if f"`{name}`" not in README} == set()


def test_every_command_is_named():
    assert {name for name in main.commands if f"`{name}" not in README} == set()


def test_results_lie_beside_the_script_that_made_them():
    results = ROOT / "scripts" / "results"
    by_a_command = {"compare", "depths", "first_session", "heads", "import_caffe", "speed"}
    for path in results.glob("*.md"):
        assert path.stem in by_a_command or (ROOT / "scripts" / f"{path.stem}.py").is_file()
        assert re.search(r"^    (python scripts/|kerasft )|^\$ kerasft", path.read_text(), re.M)


def test_the_python_on_the_page_calls_the_public_api():

    trees = [ast.parse(code) for code in re.findall(r"```python\n(.+?)```", README, re.S)]
    imported = {
        alias.name
        for tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module == "kerasft"
        for alias in node.names
    }
    assert imported | {"compare_ways"} == set(kerasft.__all__)


def test_the_session_is_an_excerpt_of_the_whole_one():
    excerpt = README.partition("<!-- session -->")[2].partition("<!-- /session -->")[0]
    whole = (ROOT / "scripts" / "results" / "first_session.md").read_text("utf-8").splitlines()
    lines = [line for line in excerpt.splitlines() if line]
    assert len(lines) > 10
    assert [line for line in lines if line not in whole] == []
