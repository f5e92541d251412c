"""Mutation run: small faults planted by cosmic-ray, each of which some test should see.

    python -m venv mutation && mutation/bin/pip install cosmic-ray==8.7.0
    python scripts/mutants.py --tool mutation/bin/cosmic-ray [MODULE ...]

For each module (of TESTS, by default all) the tool lists every mutant; ten are drawn with seed 0
and those of ASKED added. Each is planted in a copy of the project, and the module's tests run
until one fails. scripts/results/mutants.md gets the outcome; sections of other modules stay.

Left out: type annotations and aliases, `if TYPE_CHECKING`, the `*` of a signature, and what does
not compile. The tool does not touch strings, so no docstring either. Unix only (`fork`).
"""

import argparse
import ast
import contextlib
import datetime
import importlib
import importlib.util
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator
from difflib import ndiff
from pathlib import Path

import pytest
from mutants_known import ASKED, EQUIVALENT

ROOT = Path(__file__).resolve().parent.parent
ASSETS = Path(os.environ.get("KERASFT_TEST_ASSETS") or ROOT.parent / "shared" / "assets")
RESULTS = ROOT / "scripts" / "results" / "mutants.md"
DRAWN = 10
OPTIONS = ["-x", "-q", "--tb=no", "-rfE", "-m", "not slow", "-p", "no:cacheprovider"]
TIMEOUT = 300  # seconds of one pytest; a mutant that takes longer counts as killed

# Test files of each module: the first runs alone, the others only if it kills nothing.
TESTS = {
    "models/cut": "models/test_cut models/test_several_nets models/test_live models/test_cells",
    "activations/store": "activations/test_store activations/test_eviction",
    "activations/keys": "activations/test_keys activations/test_prefix_pass training/test_plan",
    "data/splits": "data/test_splits data/test_copies data/test_scan",
    "training/rates": "training/test_rates training/test_trainable",
    "heads/trained": "heads/test_trained models/test_several_nets models/test_features",
    "heads/solver": "heads/test_solver heads/test_methods heads/test_linear_svm",
    "heads/estimators": "heads/test_methods heads/test_solved heads/test_linear_svm",
    "evaluation/evaluate": "evaluation/test_evaluate evaluation/test_predict",
    "pixels/images": "pixels/test_images pixels/test_headers",
    "compare/verdict": "compare/test_verdict cli/test_compare_text",
    "training/checkpoint": "training/test_checkpoint training/test_fit",
    "training/fit": "training/test_fit training/test_phase training/test_train",
    "training/trainable": "training/test_trainable training/test_other_backends",
    "training/plan": "training/test_plan training/test_reopen activations/test_pace",
    "config/settled": "config/test_settled training/test_plan training/test_reopen",
}
HEADING = """\
# Mutants

Small faults planted one at a time by [cosmic-ray](https://cosmic-ray.readthedocs.io), ten for
each module drawn with seed 0, and some asked for by hand ("asked"); `scripts/mutants.py` says
which are left out. A row names the first test that failed. An equivalent mutant computes the same,
so that no test can notice it.

    python scripts/mutants.py --tool mutation/bin/cosmic-ray

"""
CONFIG = """\
[cosmic-ray]
module-path = "{}"
timeout = 1
excluded-modules = []
test-command = ""
[cosmic-ray.distributor]
name = "local"
"""


class Copy:
    """A copy of the project, in which mutants of one module are planted and undone."""

    def __init__(self, folder: Path, module: str) -> None:
        self.folder, self.path = folder, folder / "kerasft" / f"{module}.py"
        self.text = self.path.read_text("utf-8")
        names = [f"tests/{name}.py" for name in TESTS[module].split()]
        self._groups = [group for group in (names[:1], names[1:]) if group]
        self._sound: list[list[str]] = []  # groups that pass without a mutant

    def plant(self, text: str) -> None:
        """Replaces the module's text. A compiled file of the same second would hide that."""
        self.path.write_text(text, "utf-8")
        Path(importlib.util.cache_from_source(str(self.path))).unlink(missing_ok=True)

    def first_failure(self, text: str) -> str | None:
        """Runs the module's tests with a mutant; returns the first that fails, or None."""
        for names in self._groups:
            if names not in self._sound:
                self.plant(self.text)
                if failed := self._run(names):
                    sys.exit(f"{self.path}: {failed} fails without a mutant")
                self._sound.append(names)
            self.plant(text)
            if failed := self._run(names):
                return failed
        return None

    def _run(self, names: list[str]) -> str | None:
        """Runs pytest in a fork, which has TensorFlow imported already (half of the time)."""
        log, temporary = self.folder / "log", self.folder / "tmp"
        temporary.mkdir()
        child = os.fork()
        if not child:
            os.setsid()  # so that processes of tests can be ended with it
            signal.alarm(TIMEOUT)
            os.chdir(self.folder)
            os.environ["PYTHONPATH"] = str(self.folder)
            tempfile.tempdir = os.environ["TMPDIR"] = str(temporary)
            with log.open("w") as file:
                os.dup2(file.fileno(), 1)
                os.dup2(file.fileno(), 2)
            os._exit(pytest.main([*OPTIONS, *names]))
        _, status = os.waitpid(child, 0)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)
        shutil.rmtree(temporary, ignore_errors=True)
        code = os.waitstatus_to_exitcode(status)
        if code == -signal.SIGALRM:
            return "timed out"
        failed = re.search(r"^(?:FAILED|ERROR) tests/(.+?)(?: - .*)?$", log.read_text(), re.M)
        return (failed[1] if failed else f"pytest ended with {code}") if code else None


def list_mutants(tool: str, copy: Copy) -> list[tuple[str, int]]:
    """Returns operator and occurrence of every mutant of a module that is not left out."""
    name = str(copy.path.relative_to(copy.folder))
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "config").write_text(CONFIG.format(name))
        run = [tool, "init", f"{folder}/config", f"{folder}/session"]
        subprocess.run(run, cwd=copy.folder, check=True)
        dump = [tool, "dump", f"{folder}/session"]
        lines = subprocess.run(dump, capture_output=True, text=True, check=True).stdout
    left_out = list(_left_out(ast.parse(copy.text)))
    found = [json.loads(line)[0]["mutations"][0] for line in lines.splitlines()]
    return sorted(
        (one["operator_name"], one["occurrence"])
        for one in found
        if not any(first <= tuple(one["start_pos"]) < last for first, last in left_out)
    )


def _left_out(tree: ast.Module) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    """Yields beginning and end, as line and column, of what only a type checker reads."""
    nodes: list[ast.AST | None] = []
    for node in ast.walk(tree):
        nodes += [getattr(node, "annotation", None), getattr(node, "returns", None)]
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            nodes.append(node)
    for node in tree.body:  # an alias: Rows = np.ndarray | Concatenated
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.BinOp):
            nodes += [node.value] if isinstance(node.value.op, ast.BitOr) else []
    for one in nodes:
        if isinstance(one, ast.expr | ast.stmt):
            yield (one.lineno, one.col_offset), (one.end_lineno or 0, one.end_col_offset or 0)


def mutants_of(tool: str, copy: Copy, module: str) -> Iterator[tuple[str, str]]:
    """Yields operator and text of the module for each mutant to try."""
    listed = list_mutants(tool, copy)
    random.Random(0).shuffle(listed)
    drawn = 0
    while listed and drawn < DRAWN:
        operator, occurrence = listed.pop()
        name = str(copy.path.relative_to(copy.folder))
        command = [tool, "apply", name, operator, str(occurrence)]
        subprocess.run(command, cwd=copy.folder, check=True, capture_output=True)
        text = copy.path.read_text("utf-8")
        copy.plant(copy.text)
        with contextlib.suppress(SyntaxError), warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)  # of `x is "y"`
            compile(text, name, "exec")
            if _keyword_only(text) == _keyword_only(copy.text):
                drawn += 1
                yield operator.removeprefix("core/"), text
    for before, after in ASKED.get(module, []):
        if copy.text.count(before) != 1:
            raise ValueError(f"{module}: {copy.text.count(before)} times in it: {before}")
        yield "asked", copy.text.replace(before, after)


def _keyword_only(text: str) -> int:
    """Counts parameters that are keyword-only: the tool takes their `*` for a multiplication."""
    nodes = ast.walk(ast.parse(text))
    return sum(len(node.kwonlyargs) for node in nodes if isinstance(node, ast.arguments))


def changed(before: str, after: str) -> tuple[int, str, str]:
    """Returns number of the first line that differs, the lines before, and those after."""
    old, new = before.splitlines(), after.splitlines()
    line = next(i for i, pair in enumerate(zip(old, new, strict=False)) if pair[0] != pair[1])
    parts = list(ndiff(old, new))
    lost, got = (
        " ".join(part[2:].strip() for part in parts if part.startswith(sign)) for sign in "-+"
    )
    return line + 1, lost, got


def try_module(tool: str, copy: Copy, module: str) -> str:
    """Tries the mutants of a module; returns its section of the results."""
    rows = ["| line | operator | before | after | result |", "| --- | --- | --- | --- | --- |"]
    for operator, text in mutants_of(tool, copy, module):
        failed = copy.first_failure(text)
        copy.plant(copy.text)
        line, lost, got = changed(copy.text, text)
        reason = EQUIVALENT.get(module, {}).get(got or f"without {lost}")
        outcome = f"killed: {failed}" if failed else f"lived: {reason or 'not explained yet'}"
        cells = (str(line), operator, f"`{lost}`", f"`{got}`" if got else "(removed)", outcome)
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
        print(module, *cells[:2], lost, "->", got, "::", outcome, flush=True)
    return f"## {module}\n\nRun on {datetime.date.today()}.\n\n" + "\n".join(rows) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("modules", nargs="*", choices=[*TESTS, []], help="default: all")
    parser.add_argument("--tool", default="cosmic-ray", help="path of cosmic-ray")
    options = parser.parse_args()
    # As tests/conftest.py sets them before anything is imported.
    os.environ |= {"KERASFT_TEST_ASSETS": str(ASSETS), "TF_CPP_MIN_LOG_LEVEL": "3"}
    if (ASSETS / "models").is_dir():
        os.environ["KERAS_HOME"] = str(ASSETS)
    for name in ("tensorflow", "keras", "sklearn.svm", "scipy.optimize"):
        importlib.import_module(name)
    tool = str(Path(options.tool).resolve()) if os.sep in options.tool else options.tool
    for module in options.modules or TESTS:
        with tempfile.TemporaryDirectory(prefix="mutants-") as name:
            command = ["git", "ls-files", "-co", "--exclude-standard", "-z"]
            listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
            for path in filter(None, listed.stdout.split("\0")):
                Path(name, path).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(ROOT / path, Path(name, path))
            section = try_module(tool, Copy(Path(name), module), module)
        text = RESULTS.read_text("utf-8") if RESULTS.exists() else ""
        sections = {part.split("\n")[0]: f"## {part}" for part in text.split("\n## ")[1:]}
        sections[module] = section
        ordered = [sections[one].strip() + "\n" for one in TESTS if one in sections]
        rows = re.findall(r"\| (killed|lived): (\w+)", "\n".join(ordered))
        killed = sum(result == "killed" for result, _ in rows)
        equal = sum(pair == ("lived", "equivalent") for pair in rows)
        total = f"**{len(rows)} mutants: {killed} killed, {len(rows) - killed} lived, of these "
        total += f"{equal} equivalent.**\n\n"
        RESULTS.write_text(HEADING + total + "\n".join(ordered), "utf-8", newline="\n")


if __name__ == "__main__":
    main()
