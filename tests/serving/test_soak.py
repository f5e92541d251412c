"""A short soak: hundreds of requests, a tenth of them malformed, each answer compared."""

import pytest
from served import exported_run
from soak_serve import GOOD, files_of, known_answers, soak

KINDS = 26


@pytest.fixture(scope="module")
def export(tmp_path_factory):
    return exported_run(tmp_path_factory.mktemp("soak")) / "export"


@pytest.fixture(scope="module")
def files(export):
    return files_of(export.parent.parent / "photos", 12)


@pytest.mark.slow
def test_500_requests_are_all_answered_rightly(export, files):
    done = soak(export, files, count=500)
    assert done.wrong == []
    assert done.kinds.total() == 500
    bad = {kind: count for kind, count in done.kinds.items() if kind not in GOOD}
    assert (len(bad), sum(bad.values())) == (KINDS, 50)
    assert list(done.resident) == [50 * part for part in range(1, 11)]
    # It grows by 12 MB; by 72 MB if the two bodies of 40 MB stay, up to the limit of 32 MB each.
    assert done.resident[500] < done.resident[50] + 40e6


@pytest.mark.slow
def test_the_soak_notices_answers_that_are_swapped(export, files):
    known = known_answers(export, files)
    done = soak(export, files, count=60, known=[*known[1:], known[0]])  # the control
    assert len(done.wrong) >= 40
