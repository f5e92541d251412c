"""The structure that kerasft/README.md describes, read from the source files."""

import ast
import fnmatch
import re
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from import_graph import (
    import_graph,
    imported_at_the_top,
    imported_names,
    longest_chain,
    modules_per_package,
    own_modules,
    parse_modules,
    reached_at_the_top,
)
from pydantic import BaseModel

from kerasft.config.fields import Config, Phase, Solved
from kerasft.config.load import load_config

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "kerasft"
MODULES = parse_modules()

# From the top: a package imports packages below it, never above or beside.
ORDER = (
    "cli",
    "compare",
    "updating",
    "checking",
    "serving",
    "evaluation",
    "export",  # below evaluation, which predicts with exports
    "training",
    "reports",  # below training, which writes a light page at the end
    "activations",
    "data",
    "sources",
    "pixels",
    "novelty",
    "models",
    "importers",
    "config",
    "heads",  # below config, which checks methods against their table
    "backbones",
    "sample",
)
KERAS_ALLOWED = {
    "novelty",
    "compare",
    "updating",
    "checking",
    "export",
    "evaluation",
    "training",
    "activations",
    "data",
    "pixels",
    "models",
    "heads",
}
# cli, config, backbones, importers and these start in a moment.
TOP_LEVEL = {
    "answers",
    "cache",
    "devices",
    "errors",
    "files",
    "input_rule",
    "lazy_tensorflow",
    "metrics",
    "plots",
    "confidence",
    "processes",
    "progress",
    "record",
    "results",
    "rows",
    "run",
    "seeds",
    "text",
    "trackers",
    "unpacked",
    "untrusted",
}
HEAVY = {"tensorflow", "keras", "sklearn"}


def package_of(module: str) -> str:
    return module.rpartition(".")[0]


def packages(names: set[str]) -> set[str]:
    return {name.partition(".")[0] for name in names}


def test_every_folder_is_a_package_of_the_order():
    assert set(modules_per_package(MODULES)) == {"", *ORDER}
    assert {name for name in MODULES if not package_of(name)} == TOP_LEVEL


@pytest.mark.parametrize("package", ORDER)
def test_a_package_imports_packages_below_it_and_the_top_level(package):
    below = {"", *ORDER[ORDER.index(package) + 1 :], package}
    if package in ("data", "sources", "pixels"):
        below -= {"models"}  # photos and models do not know each other
    wrong = {
        f"{name} imports {other}"
        for name, tree in MODULES.items()
        if package_of(name) == package
        for other in own_modules(imported_names(tree), MODULES)
        if package_of(other) not in below
    }
    assert wrong == set()


def test_the_top_level_imports_the_top_level_alone():
    wrong = {
        f"{name} imports {other}"
        for name in TOP_LEVEL
        for other in own_modules(imported_names(MODULES[name]), MODULES)
        if package_of(other)
    }
    assert wrong == set()


def test_there_is_no_circle_and_no_chain_of_imports_over_19():
    assert len(longest_chain(import_graph(MODULES))) <= 19


def test_the_longest_chain_counts_each_module():
    graph = {"a": {"b", "c"}, "b": {"c"}, "c": set(), "d": {"c"}}
    assert longest_chain(graph) == ["a", "b", "c"]  # the control


def test_a_package_has_at_most_12_modules():
    counts = modules_per_package(name for name in MODULES if package_of(name))
    assert {name: count for name, count in counts.items() if count > 12} == {}


@pytest.mark.parametrize("package", ORDER)
def test_an_init_is_the_page_of_its_package_and_imports_nothing(package):
    tree = ast.parse((PACKAGE / package / "__init__.py").read_text("utf-8"))
    assert len(ast.get_docstring(tree) or "") > 80
    assert len(tree.body) == 1


@pytest.mark.parametrize("package", ORDER)
def test_the_page_of_a_package_names_every_module_in_it(package):
    page = ast.get_docstring(ast.parse((PACKAGE / package / "__init__.py").read_text("utf-8")))
    inside = {name.rpartition(".")[2] for name in MODULES if package_of(name) == package}
    assert {name for name in inside if not re.search(rf"\b{name}\b", page or "")} == set()


def test_the_page_of_the_project_names_every_package_in_order_and_every_top_level_module():
    page = ast.get_docstring(ast.parse((PACKAGE / "__init__.py").read_text("utf-8"))) or ""
    _, _, packages_part = page.partition("Packages; ")
    assert tuple(re.findall(r"^    (\w+)  +\S", packages_part, re.MULTILINE)) == ORDER
    assert {name for name in TOP_LEVEL if not re.search(rf"\b{name}\b", packages_part)} == set()


def test_the_glossary_has_a_sentence_for_each_word_and_is_sorted():
    page = ast.get_docstring(ast.parse((PACKAGE / "__init__.py").read_text("utf-8"))) or ""
    _, _, glossary = page.partition("Glossary:\n")
    entries = re.findall(r"^    (\w+): ((?:.+\n?)(?:^        .+\n?)*)", glossary, re.MULTILINE)
    words = [word for word, _ in entries]
    assert words == sorted(words) and len(words) >= 18
    assert [word for word, text in entries if not text.strip().endswith(".")] == []


def test_tensorflow_is_imported_at_the_top_of_no_module():
    # JAX and PyTorch do without it; `lazy_tensorflow` imports it when it is first used.
    found = {
        name
        for name, tree in MODULES.items()
        if "tensorflow" in packages(imported_at_the_top(tree))
    }
    assert found == set()


def test_keras_is_imported_at_the_top_where_it_is_allowed_alone():
    wrong = {
        name
        for name, tree in MODULES.items()
        if HEAVY & packages(imported_at_the_top(tree))
        and package_of(name) not in KERAS_ALLOWED
        and name != "devices"
    }
    assert wrong == set()


START_FAST = sorted(
    name for name in MODULES if package_of(name) not in KERAS_ALLOWED and name not in ("devices",)
)


@pytest.mark.parametrize("module", START_FAST)
def test_importing_it_loads_neither_tensorflow_nor_keras(module):
    assert not reached_at_the_top(module, MODULES) & HEAVY


def test_following_imports_finds_what_a_module_of_ours_imports_in_turn():
    assert {"keras", "sklearn"} <= reached_at_the_top("training.train", MODULES)  # the control


@pytest.mark.parametrize("command", [[], ["train"], ["unfreeze-and-continue"], ["predict"]])
def test_help_leaves_tensorflow_and_keras_out_of_the_process(command):
    code = (
        "import sys\n"
        "from kerasft.cli.main import main\n"
        f"main({[*command, '--help']}, standalone_mode=False)\n"
        "heavy = {'tensorflow', 'keras', 'sklearn', 'numpy', 'pydantic', 'rich'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_click_and_rich_live_in_the_command_line_alone():
    found = {
        name for name, tree in MODULES.items() if {"click", "rich"} & packages(imported_names(tree))
    }
    assert {package_of(name) for name in found} == {"cli"}


def test_the_library_never_prints_and_never_exits():
    calls = [
        f"{name}:{node.lineno}"
        for name, tree in MODULES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("print", "exit", "sys.exit")
    ]
    assert calls == []


def docstrings(tree):
    """Constants that are docstrings of a module, a class or a function."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and node.body:
            first = node.body[0]
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                yield first.value


def flags_named(tree):
    """The texts in a module that name a flag of the command line."""
    passed_over = set(docstrings(tree))
    return [
        f"line {node.lineno}: {node.value}"
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and node not in passed_over
        and re.search(r"(?<![\w-])--[a-z]", node.value)
    ]


def test_the_library_names_fields_and_never_a_flag():
    named = {name: flags_named(tree) for name, tree in MODULES.items() if package_of(name) != "cli"}
    assert {name: texts for name, texts in named.items() if texts} == {}


def test_a_flag_is_found_in_every_text_but_a_docstring():
    code = '''
"""Takes --data."""
def f(x):
    """Takes --data."""
    raise ValueError(f"{x}: pass --data.", "a--b", "--", "c -- d")
'''
    assert flags_named(ast.parse(code)) == ["line 5: : pass --data."]  # the control


RUNS_WHAT_IT_READS = re.compile(
    r"eval|exec|compile|__import__|import_module|importlib\.import_module|os\.(system|popen)"
    r"|os\.(exec|spawn)\w+|torch\.load|tf\.saved_model\.load|np\.(load|loadtxt|genfromtxt|memmap)"
    r"|json\.loads?|keras\.models\.(load_model|model_from_json)|keras\.saving\.\w+|keras\.layers\.(Lambda|TFSMLayer)"
    r"|.*\.(extract|extractall|unpack_archive|func_load|enable_unsafe_deserialization)"
)
"""Calls that may run, import, unpickle or overwrite what a file says, or fail on it."""

LIBRARIES_THAT_DO = {
    "pickle",
    "dill",
    "cloudpickle",
    "shelve",
    "marshal",
    "joblib",
    "yaml",
    "runpy",
}

ALLOWED = {
    "untrusted": {"json.loads(text)"},  # the one place that knows what it raises
    "serving.rest": {"json.loads(body)"},  # counts brackets first, and answers with a status
    "models.bundle": {"keras.saving.deserialize_keras_object(uncompiled, safe_mode=True)"},
    # A SavedModel is a graph: TensorFlow runs its operations, and Python evaluates nothing.
    "export.savedmodel": {"tf.saved_model.load(str(folder))"},
    # Its header was read before, by `untrusted.read_array_header`.
    "activations.store": {"np.load(path, mmap_mode='r', allow_pickle=False)"},
    # One array of many; the checksums of all were compared before.
    "training.checkpoint": {"np.load(path, allow_pickle=False)"},
    # Names in tables of ours.
    "export.formats": {"importlib.import_module(module)"},
    # What kerasft has just written itself.
    "serving.app": {"json.loads(text.replace('{NAME}', name))"},
    "export.litert": {"np.load(calibration, mmap_mode='r')"},
    "export.onnx_format": {"np.load(calibration, mmap_mode='r')"},
    "export.parity": {
        "keras.models.load_model(model)",
        "json.loads((Path(work) / 'task.json').read_text('utf-8'))",
        "np.load(work / 'export.npz')",
        "np.load(work / 'reference.npz')",
        "np.load(Path(task['inputs'][-1]).parent / PIXELS)",
    },
}


def risky_calls(tree):
    """Returns the calls in a module that may run what a file says, as they are written."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            given = {word.arg: ast.unparse(word.value) for word in node.keywords}
            off = {name: given.get(name, "False") for name in ("shell", "allow_pickle")}
            if (
                RUNS_WHAT_IT_READS.fullmatch(ast.unparse(node.func))
                or set(off.values()) != {"False"}
                or given.get("safe_mode", "True") != "True"
            ):
                found.add(ast.unparse(node))
    return found


def test_nothing_is_unpickled_or_evaluated():
    risky = {name: risky_calls(tree) for name, tree in MODULES.items()}
    assert {name: calls for name, calls in risky.items() if calls} == ALLOWED
    libraries = {
        name for name, tree in MODULES.items() if LIBRARIES_THAT_DO & packages(imported_names(tree))
    }
    assert libraries == set()


def test_a_call_that_may_run_code_is_found_however_it_is_written():
    code = """
import numpy as np, subprocess
np.load(path, allow_pickle=True)
subprocess.run(text, shell=True)
archive.extractall(folder)
models.load_model(path, safe_mode=False)
eval(text)
re.compile(text), np.load
"""
    assert risky_calls(ast.parse(code)) == {
        "np.load(path, allow_pickle=True)",
        "subprocess.run(text, shell=True)",
        "archive.extractall(folder)",
        "models.load_model(path, safe_mode=False)",
        "eval(text)",
    }  # the control


def test_results_are_objects_and_few_functions_return_a_bare_dict():
    bare = [
        f"{name}.{node.name}"
        for name, tree in MODULES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef)
        and node.returns is not None
        and re.search(r"\bdict(?!\[)|dict\[str, (Any|object)\]", ast.unparse(node.returns))
    ]
    assert len(bare) <= 20, bare  # `to_json` at the edge counts too


def test_only_errors_py_defines_an_exception():
    defined = [
        f"{name}.{node.name}"
        for name, tree in MODULES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
        and any(ast.unparse(base).endswith(("Error", "Exception")) for base in node.bases)
    ]
    names = ("UserError", "PhaseFailed", "OutOfMemory", "TooFewPhotos", "Unreadable", "OutOfTime")
    assert defined == [f"errors.{name}" for name in names]


def test_tests_lie_in_folders_named_as_packages():
    folders = {path.parent.name for path in (ROOT / "tests").rglob("test_*.py")}
    assert folders == {"tests", "support", *ORDER}


def test_a_module_over_500_lines_is_looked_at():
    for name in MODULES:
        path = PACKAGE / f"{name.replace('.', '/')}.py"
        count = sum(1 for line in path.read_text("utf-8").splitlines() if line.strip())
        if count > 500:  # a soft alarm: does its docstring need "and"?
            warnings.warn(f"{name}: {count} lines", stacklevel=1)


@pytest.mark.parametrize("module", MODULES)
def test_every_module_and_public_function_says_what_it_is_for(module):
    public = [
        node
        for node in MODULES[module].body
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_")
    ]
    assert ast.get_docstring(MODULES[module])
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
    "tensorboard": ["tensorboard=true"],
    "calibrate": ["calibrate=false"],
    "report": ["report=false"],
    "data.source": ["data.source=elsewhere"],
    "data.data_dir": ["data.data_dir=sets", "data.source=tfds:mnist"],
    "data.layout": ["data.layout=splits"],
    "data.added": ["data.added=['/more']"],
    "data.classes": ["data.classes={'weeds' = ''}"],
    "data.columns": ["data.columns=['label=breed']"],
    "data.label_from": ["data.label_from=([a-z]+)_"],
    "data.validation": ["data.validation=0.2"],
    "data.test": ["data.test=0"],
    "data.fraction": ["data.fraction=0.5"],
    "data.splits_from": ["data.splits_from=none"],
    "data.bad_images": ["data.bad_images=skip"],
    "data.small_classes": ["data.small_classes=leave_out"],
    "data.near_copies": ["data.near_copies=ignore"],
    "data.resize": ["data.resize=crop"],
    "data.background": ["data.background=black"],
    "data.depth": ["data.depth=12"],
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
    "cache.batch": ["cache.batch=64"],
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
    "phases.0.head_start": ["phases.0.head_start=kept"],
    "phases.0.l2_sp": ["phases.0.l2_sp=0.01", "phases.0.blocks=2"],
    "phases.0.co_tuning": ["phases.0.co_tuning=1", "phases.0.blocks=2"],
    "phases.0.wise": ["phases.0.wise=false"],
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
    if isinstance(value, dict):
        return str(value).replace(": ", " = ")
    return f"{value:g}" if isinstance(value, float) else str(value)
