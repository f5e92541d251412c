import h5py
import pytest

from kerasft.backbones.compatibility import backbone_of, check_backbone
from kerasft.errors import UserError


def test_a_file_says_which_backbone_it_was_written_for(tmp_path):
    with h5py.File(tmp_path / "w.h5", "w") as file:
        file.attrs["kerasft_backbone"] = "CaffeNet"
    assert backbone_of(tmp_path / "w.h5") == "CaffeNet"
    check_backbone(tmp_path / "w.h5", "CaffeNet")
    with pytest.raises(UserError, match=r"holds weights of CaffeNet, got backbone AlexNet\."):
        check_backbone(tmp_path / "w.h5", "AlexNet")


def test_other_files_do_not_say_it(tmp_path):
    with h5py.File(tmp_path / "other.h5", "w"):
        pass
    (tmp_path / "text.h5").write_text("no weights")
    for name in ("other.h5", "text.h5", "absent.h5"):
        assert backbone_of(tmp_path / name) is None
        check_backbone(tmp_path / name, "VGG16")
