"""`kerasft compare` as it is typed."""

import json

import pytest
from click.testing import CliRunner
from drawing import draw_photos

from kerasft.cli.main import main
from kerasft.compare.ways import WAYS

pytestmark = pytest.mark.usefixtures("eagerly", "tiny_backbone")


def run(*arguments):
    return CliRunner().invoke(main, ["compare", *map(str, arguments)])


SMALL = (
    "--backbones",
    "Tiny",
    "--weights",
    "none",
    "--image-size",
    "32",
    "--set",
    "augment.views=2",
)


def test_a_comparison_prints_its_result_and_says_what_is_done(tmp_path):
    photos = draw_photos(tmp_path / "photos")
    done = run(photos, *SMALL, "--ways", "lda,knn", "--out", tmp_path / "out", "--json")
    assert done.exit_code == 0
    result = json.loads(done.stdout)
    assert [row["name"] for row in result["ways"]] == ["knn", "lda"]
    assert json.loads((tmp_path / "out" / "compare.json").read_text()) == result
    lines = done.stderr.splitlines()
    assert lines[0] == "36 images read"
    assert [line.partition(":")[0] for line in lines[1:]] == ["1/2 knn on Tiny", "2/2 lda on Tiny"]
    again = run(photos, *SMALL, "--ways", "lda,knn", "--out", tmp_path / "out")
    assert again.exit_code == 0
    assert again.stdout.startswith("way  backbone  corrected")
    assert result["advice"] in again.stdout


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (
            ("--ways", "svn"),
            "Error: the options have 1 problem:\n  --ways: expected some of as-is, knn, bayes, "
            "lda, logistic, svm, rbf-svm, linear, fc, depths, unfreeze, full, scratch, got 'svn'. "
            "Did you mean 'svm'?\n",
        ),
        (
            ("--fractions", "half"),
            "Error: --fractions: expected numbers such as 0.1,0.5,1, got 'half'.\n",
        ),
        (
            ("--backbones", "Tiny,MobilNet"),
            "Error: the options have 1 problem:\n  model.backbone (--backbones): unknown name "
            "'MobilNet'. Did you mean 'MobileNet'? `kerasft backbones` lists all 44.\n",
        ),
    ],
)
def test_bad_input_is_one_message_and_leaves_nothing(typed, said, tmp_path):
    done = run(tmp_path, *typed, "--out", tmp_path / "out")
    assert (done.exit_code, done.stdout, done.stderr) == (2, "", said)
    assert not (tmp_path / "out").exists()


def test_the_former_name_of_an_option_still_works_and_help_does_not_show_it(tmp_path):
    done = run(tmp_path, "--methods", "svn", "--out", tmp_path / "out")
    assert done.stderr.startswith("Error: the options have 1 problem:\n  --ways: expected some of")
    assert "--methods" not in run("--help").stdout


def test_help_names_every_way_and_those_that_need_a_budget():
    (option,) = (one for one in main.commands["compare"].params if one.name == "ways")
    *costly, costliest = [name for name, way in WAYS.items() if not way.default]
    assert option.help.startswith(
        f"Ways to try, out of {', '.join(WAYS)}. Default: all except {', '.join(costly)} and "
        f"{costliest};"
    )


def test_commas_stand_between_backbones_and_between_their_options(tmp_path):
    done = run(
        *(tmp_path, "--ways", "svm", "--out", tmp_path / "out"),
        *("--backbones", "MobileNetV3Small:alpha=1,minimalistic=maybe,MobileNet"),
    )
    assert done.exit_code == 2
    assert "expected minimalistic to be true or false, got 'maybe'." in done.stderr
