"""The structure that README and the design promise, read from the source files."""

import ast
import fnmatch
import graphlib
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import BaseModel

from kerasft.config import Config, Phase, Solved, load_config

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "kerasft"
TREES = {path.stem: ast.parse(path.read_text("utf-8")) for path in sorted(PACKAGE.glob("*.py"))}
MODULES = [name for name in TREES if name not in ("__init__", "__main__")]

USE_TENSORFLOW = {
    "augment",
    "data",
    "devices",
    "engines",
    "export",
    "headers",
    "images",
    "parity",
    "predict",
}
START_FAST = {
    "cache",
    "backbones",
    "backbones_text",
    "cache_text",
    "caffe_text",
    "caffemodel",
    "cli",
    "cli_compare",
    "cli_import",
    "cli_shared",
    "cli_tables",
    "caffe_import",
    "chains",
    "compare_text",
    "config",
    "errors",
    "fields",
    "kinds",
    "imagenet",
    "import_text",
    "imported",
    "matching",
    "phase_fields",
    "progress",
    "prototxt",
    "randomness",
    "run",
    "run_weights",
    "sizes",
    "terminal",
    "torch_import",
    "training_text",
    "unpacked",
    "wire",
}


def imported(tree: ast.AST) -> set[str]:
    """Dotted names of all that is imported: `from a import b` gives both a and a.b."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            names |= {str(node.module)} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def imported_at_the_top(tree: ast.Module) -> set[str]:
    """As `imported`, without what functions import when they are called."""
    names: set[str] = set()
    for node in tree.body:
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names |= imported(node)
    return names


def packages(names: set[str]) -> set[str]:
    return {name.partition(".")[0] for name in names}


def modules_of_ours(names: set[str]) -> set[str]:
    return {name.split(".")[1] for name in names if name.startswith("kerasft.")} & set(MODULES)


def reached_at_the_top(module: str) -> set[str]:
    """Packages that importing a module of ours imports, through other modules of ours too."""
    seen: set[str] = set()
    found: set[str] = set()
    waiting = {module}
    while waiting:
        names = imported_at_the_top(TREES[waiting.pop()])
        found |= packages(names)
        ours = modules_of_ours(names)
        waiting |= ours - seen
        seen |= ours
    return found


def test_only_the_listed_modules_import_tensorflow():
    found = {name for name in MODULES if "tensorflow" in packages(imported(TREES[name]))}
    assert found == USE_TENSORFLOW


@pytest.mark.parametrize("module", sorted(START_FAST))
def test_importing_the_command_line_and_the_config_loads_neither_tensorflow_nor_keras(module):
    assert not reached_at_the_top(module) & {"tensorflow", "keras", "sklearn"}


def test_following_imports_finds_what_a_module_of_ours_imports_in_turn():
    assert {"keras", "tensorflow"} <= reached_at_the_top("train")  # the control


@pytest.mark.parametrize("command", [[], ["train"], ["unfreeze-and-continue"], ["predict"]])
def test_help_leaves_tensorflow_and_keras_out_of_the_process(command):
    code = (
        "import sys\n"
        "from kerasft.cli import main\n"
        f"main({[*command, '--help']}, standalone_mode=False)\n"
        "print(sorted({'tensorflow', 'keras', 'sklearn', 'pydantic'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_nobody_imports_the_command_line():
    assert [name for name in MODULES if "cli" in modules_of_ours(imported(TREES[name]))] == []


def test_dependencies_point_one_way():
    graph = {name: modules_of_ours(imported(TREES[name])) - {name} for name in MODULES}
    order = list(graphlib.TopologicalSorter(graph).static_order())  # a circle raises CycleError
    assert order.index("images") < order.index("train") < order.index("cli")


def test_the_library_imports_no_click():
    found = {name for name in MODULES if "click" in packages(imported(TREES[name]))}
    assert found == {"cli", "cli_compare", "cli_import", "cli_shared", "cli_tables", "terminal"}


def test_the_library_never_prints_and_never_exits():
    calls = [
        f"{name}:{node.lineno}"
        for name in MODULES
        for node in ast.walk(TREES[name])
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("print", "exit", "sys.exit")
    ]
    assert calls == []


def test_only_errors_py_defines_an_exception():
    defined = [
        f"{name}.{node.name}"
        for name in MODULES
        for node in ast.walk(TREES[name])
        if isinstance(node, ast.ClassDef)
        and any(ast.unparse(base).endswith(("Error", "Exception")) for base in node.bases)
    ]
    assert defined == ["errors.UserError", "errors.PhaseFailed", "errors.OutOfTime"]


@pytest.mark.parametrize("module", MODULES)
def test_every_module_has_its_tests(module):
    assert (ROOT / "tests" / f"test_{module}.py").is_file()


@pytest.mark.parametrize("module", MODULES)
def test_a_module_is_one_concept_long(module):
    lines = (PACKAGE / f"{module}.py").read_text("utf-8").splitlines()
    assert sum(1 for line in lines if line.strip()) <= 350


@pytest.mark.parametrize("module", MODULES)
def test_every_module_and_public_function_says_what_it_is_for(module):
    public = [
        node
        for node in TREES[module].body
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_")
    ]
    assert ast.get_docstring(TREES[module])
    assert [node.name for node in public if not ast.get_docstring(node)] == []


def test_the_top_level_holds_what_the_design_lists_and_no_more():
    ignored = [line.strip("/") for line in (ROOT / ".gitignore").read_text().splitlines()]
    entries = {
        path.name
        for path in ROOT.iterdir()
        if path.name != ".git" and not any(fnmatch.fnmatch(path.name, i) for i in ignored)
    }
    optional = {"configs"}  # the first recipe brings it
    listed = {".ci", ".gitignore", "LICENSE", "README.md", "kerasft", "pyproject.toml"}
    assert entries - optional == listed | {"scripts", "tests"}


SETTINGS = {
    # Every field of the config: what `--set` may say, and what must be said with it.
    "seed": ["seed=3"],
    "device": ["device=cpu"],
    "data.source": ["data.source=elsewhere"],
    "data.data_dir": ["data.data_dir=sets", "data.source=tfds:mnist"],
    "data.validation": ["data.validation=0.2"],
    "data.test": ["data.test=0"],
    "data.fraction": ["data.fraction=0.5"],
    "data.bad_images": ["data.bad_images=skip"],
    "data.resize": ["data.resize=crop"],
    "model.backbone": ["model.backbone=ResNet50"],
    "model.weights": ["model.weights=none"],
    "model.image_size": ["model.image_size=96"],
    "head.features": ["head.features=flat"],
    "head.leave_out": ["head.leave_out=2"],
    "head.hidden": ["head.hidden=[256]"],
    "head.dropout": ["head.dropout=0.5"],
    "augment.flip": ["augment.flip=true"],
    "augment.crop": ["augment.crop=0.6"],
    "augment.color": ["augment.color=0.3"],
    "augment.views": ["augment.views=8"],
    "augment.mixup": ["augment.mixup=0.2"],
    "augment.test_time": ["augment.test_time=flip"],
    "cache.mode": ["cache.mode=off"],
    "cache.engine": ["cache.engine=keras"],
    "cache.precision": ["cache.precision=bfloat16"],
    "cache.dtype": ["cache.dtype=float32"],
    "phases.0.name": ["phases.0.name=first"],
    "phases.0.blocks": ["phases.0.blocks=2"],
    "phases.0.epochs": ["phases.0.epochs=7"],
    "phases.0.learning_rate": ["phases.0.learning_rate=0.01"],
    "phases.0.batch_size": ["phases.0.batch_size=4"],
    "phases.0.accumulate": ["phases.0.accumulate=4"],
    "phases.0.ema": ["phases.0.ema=0.99"],
    "phases.0.batch_norm": ["phases.0.batch_norm=train", "phases.0.blocks=2"],
    "phases.0.optimizer": ["phases.0.optimizer=adamw"],
    "phases.0.weight_decay": ["phases.0.weight_decay=0.1", "phases.0.optimizer=adamw"],
    "phases.0.momentum": ["phases.0.momentum=0.5", "phases.0.optimizer=sgd"],
    "phases.0.schedule": ["phases.0.schedule=cosine"],
    "phases.0.warmup": ["phases.0.warmup=1.5"],
    "phases.0.head_learning_rate_multiplier": [
        "phases.0.head_learning_rate_multiplier=10",
        "phases.0.blocks=2",
    ],
    "phases.0.method": ["phases.0.method=svm"],
    "phases.0.layer_decay": ["phases.0.layer_decay=0.9", "phases.0.blocks=2"],
    "phases.0.patience": ["phases.0.patience=0"],
    "phases.0.class_weight": ["phases.0.class_weight=balanced"],
    "phases.0.label_smoothing": ["phases.0.label_smoothing=0.1"],
    "phases.0.precision": ["phases.0.precision=mixed_bfloat16"],
    "phases.0.stored": ["phases.0.stored=false"],
}


def fields_of(model: type[BaseModel], prefix: str = "") -> list[str]:
    found = []
    for name, field in model.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            found += fields_of(inner, f"{prefix}{name}.")
        elif name == "phases":
            found += fields_of(Phase, "phases.0.")
            found += [f for f in fields_of(Solved, "phases.0.") if f not in found]
        else:
            found.append(prefix + name)
    return found


def test_the_list_of_settings_below_names_every_field_of_the_config():
    assert sorted(fields_of(Config)) == sorted(SETTINGS)


@pytest.mark.parametrize("field", SETTINGS)
def test_set_reaches_every_field_of_the_config(field, tmp_path):
    flags = {} if field == "data.source" else {"data.source": str(tmp_path)}
    config = load_config(None, flags=flags, sets=SETTINGS[field])
    section, _, name = field.rpartition(".")
    holder = {"phases.0": config.phases[0], "": config}.get(section)
    value = getattr(holder or getattr(config, section), name)
    assert _as_typed(value).endswith(SETTINGS[field][0].partition("=")[2])


def _as_typed(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return str(list(value))
    return f"{value:g}" if isinstance(value, float) else str(value)
