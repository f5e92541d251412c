"""Damaged and hostile configs: a config, or all problems in plain text."""

from damaged import NAMES, Place, cases, damaged, outcome, prove, survives
from hypothesis import strategies as st

from kerasft.config.fields import Config
from kerasft.config.load import load_config, to_toml

GOOD = """\
seed = 3
[data]
source = "photos"
validation = 0.2
columns = ["label=breed"]
[model]
backbone = "MobileNetV2:alpha=0.5"
weights = "none"
image_size = 96
[head]
hidden = [64]
dropout = 0.5
[[phases]]
name = "head"
epochs = 3
learning_rate = 0.001
[[phases]]
name = "deeper"
blocks = 2
optimizer = "adamw"
weight_decay = 0.1
"""
DEEP = "[" * 5_000 + "]" * 5_000
DIGITS = "9" * 5_000
VALUES = st.sampled_from(
    [
        *map(repr, (True, 0, -1, 1.5, 2**31, 2**63, 10**400, [], ["a", 1], {})),
        *(DEEP, DIGITS, "nan", "inf", "-inf", "1e999", "0x10", "1979-05-27", "07:32:00"),
        *("{a = 1}", '"""a\nb"""', "'x", "[[", "true", '"\\u0000"', '"\\uD800"'),
        f"'{'x' * 5_000}'",
        *(f"'{name}'" for name in NAMES if not set(name) & set("\ud800\n\x1b\0'")),
    ]
)
KEYS = st.sampled_from(
    [
        *("seed", "device", "data.source", "data.columns", "data.splits_from", "model.backbone"),
        *("model.weights", "model.image_size", "head.hidden", "phases.0.epochs", "phases.0"),
        *(
            "phases.-1.blocks",
            "phases.9.epochs",
            "phases",
            "data",
            "",
            ".",
            "..a",
            "a b",
            "x" * 900,
        ),
        *("__class__", "\u0663", f"phases.{DIGITS}.epochs", "phases.\u0663.epochs", "cache.batch"),
        "phases.0.method",
    ]
) | st.text(max_size=4)
LINES = GOOD.splitlines()


def with_values(changes):
    """Replaces the values of some lines, or puts a line before them."""
    lines = list(LINES)
    for line, value, before in changes:
        key, equals, _ = lines[line].partition(" = ")
        lines[line] = f"{key} = {value}" if equals and not before else f"x = {value}\n{lines[line]}"
    return "\n".join(lines).encode("utf-8", "surrogatepass")


TEXTS = st.lists(
    st.tuples(st.integers(0, len(LINES) - 1), VALUES, st.booleans()), min_size=1, max_size=3
).map(with_values) | damaged(GOOD.encode())
FOUND = [
    f"seed = {DEEP}".encode(),  # was a RecursionError
    f"seed = {DIGITS}".encode(),  # a ValueError
    b"[data]\nsource = '" + b"x" * 100_000 + b"'",
    b"[model]\nweights = '" + b"x" * 300 + b"'",  # an OSError: a name is too long
    b"[model]\nbackbone = 'MobileNetV2:alpha=" + b"9" * 5_000 + b"'",
]


@cases
def test_a_damaged_toml_file_is_a_config_or_one_list_of_problems(number, tmp_path):
    place = Place.of(tmp_path, "mine.toml")

    def fits(config):
        assert isinstance(config, Config)
        return load_again(place, config) == config

    prove(
        number,
        TEXTS,
        lambda text: survives(place, text, lambda: load_config(place.path), fits),
        FOUND,
    )


def load_again(place, config):
    other = place.path.with_name("again.toml")
    other.write_text(to_toml(config, place.path.parent), "utf-8")
    again = load_config(other)
    other.unlink()
    return again


SETS = st.lists(
    st.builds("{}={}".format, KEYS, VALUES) | st.text(max_size=9), min_size=1, max_size=3
)
FOUND_SETS = [
    [f"phases.{DIGITS}.epochs=5"],  # was a ValueError
    [f"seed={DIGITS}"],
    [f"data.columns={DEEP}"],  # a RecursionError
    ["seed=1\nseed=2"],
]


@cases
def test_options_of_any_kind_are_a_config_or_one_list_of_problems(number, tmp_path):
    place = Place.of(tmp_path, "mine.toml")
    place.path.write_text(GOOD)

    def check(sets):
        outcome(place, lambda: load_config(place.path, sets=sets), Config, named=" ")

    prove(number, SETS, check, FOUND_SETS)
