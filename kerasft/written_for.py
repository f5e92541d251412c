"""Which backbone a weights file was written for: files of other nets may have the same shapes."""

from pathlib import Path

from kerasft.backbones import same_net
from kerasft.errors import UserError

SPEC = "kerasft_backbone"  # attribute of the file


def backbone_of(path: str | Path) -> str | None:
    """The backbone that a weights file was written for; None where the file does not say."""
    import h5py  # takes a tenth of a second, which `kerasft backbones` need not wait for

    try:
        with h5py.File(path, "r") as file:
            spec = file.attrs.get(SPEC)
    except (OSError, KeyError, RuntimeError, ValueError):  # not there, not HDF5, or damaged
        return None
    return spec if isinstance(spec, str) else None


def check_backbone(path: Path, spec: str) -> None:
    """Refuses a file that was written for another backbone, whose shapes may be the same.

    Raises:
        UserError: it was.
    """
    written = backbone_of(path)
    if written is not None and not same_net(written, spec):
        raise UserError(
            f"{path}: holds weights of {written}, got backbone {spec}. Leave the backbone out, or "
            f"pass --backbone {written}."
        )
