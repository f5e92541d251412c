"""What an export says about itself: `kerasft.json`, `labels.txt` and `use/`, beside every export.

The same JSON is in the metadata of the formats that have room for it, so that a file which was
copied to a phone alone still says what its input is and what its outputs mean.
"""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kerasft import __version__
from kerasft.errors import UserError
from kerasft.input_rule import InputRule
from kerasft.untrusted import checked, fill, read_json

if TYPE_CHECKING:
    from kerasft.models.bundle import Bundle

FILE = "kerasft.json"
LABELS = "labels.txt"
USE = "use"
FORMAT = 1  # of FILE: raise it when older versions misread it


@dataclass(frozen=True)
class ExportFacts:
    """What an export says about itself.

    Attributes:
        format: key of EXPORTERS.
        quantize: "float16" or "int8"; None for float32.
        class_names: names of the K classes, in the order of the scores.
        rule: rule by which an image file becomes the input.
        threshold: score below which the model does not know; None if it always answers.
        temperature: number that the logits were divided by, which the scores contain already.
        licence: what is known of the licences that bind it.
        model_digest: digest of the model.keras that it was made of (`files.digest_of_file`); ""
            in exports that do not say it.
        versions: version of each package that wrote it.
    """

    format: str
    quantize: str | None
    class_names: tuple[str, ...]
    rule: InputRule
    threshold: float | None = None
    temperature: float = 1.0
    licence: str = ""
    model_digest: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        opened: "Bundle",
        format: str,
        quantize: str | None = None,
        licence: str = "",
        model_digest: str = "",
    ) -> "ExportFacts":
        """Gathers the facts of a model that is to be exported."""
        return cls(
            format=format,
            quantize=quantize,
            class_names=opened.class_names,
            rule=opened.rule,
            threshold=opened.threshold,
            temperature=opened.temperature,
            licence=licence,
            model_digest=model_digest,
            versions={"kerasft": __version__},
        )

    def to_text(self) -> str:
        """Returns the content of FILE."""
        facts = {
            "kerasft": FORMAT,
            "format": self.format,
            "quantize": self.quantize,
            "class_names": list(self.class_names),
            **self.rule.to_json(),
            "color_order": "RGB",
            "value_range": [0, 255],
            "threshold": self.threshold,
            "temperature": self.temperature,
            "licence": self.licence,
            "model_digest": self.model_digest,
            "versions": dict(self.versions),
        }
        return json.dumps(facts, indent=1, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, facts: Mapping[str, Any]) -> "ExportFacts":
        """Reads what `to_text` wrote.

        Raises:
            ValueError: a field is missing or is not of its type.
        """
        needed = ("quantize", "threshold", "temperature", "licence", "versions")
        if missing := [name for name in needed if name not in facts]:
            raise ValueError(f"{missing[0]} is missing")
        return fill(cls, facts, rule=InputRule.from_json(facts))


def write_facts(folder: Path, facts: ExportFacts) -> None:
    """Writes FILE and LABELS, a name per line, into an existing folder."""
    (folder / FILE).write_text(facts.to_text(), "utf-8", newline="\n")
    labels = "".join(f"{name}\n" for name in facts.class_names)
    (folder / LABELS).write_text(labels, "utf-8", newline="\n")


def write_example(folder: Path, format: str) -> None:
    """Writes USE: a program that runs the export without kerasft, and what it needs installed.

    Args:
        folder: existing folder of the export.
        format: key of EXPORTERS. For one without an example nothing is written.
    """
    examples, use = Path(__file__).with_name(USE), folder / USE
    program = examples / f"{format}.py.txt"
    if not program.is_file():
        return
    use.mkdir()
    shutil.copyfile(program, use / "predict.py")
    shutil.copyfile(examples / f"{format}.requirements.txt", use / "requirements.txt")


def read_facts(folder: Path) -> ExportFacts:
    """Reads FILE of an export.

    Raises:
        UserError: it is absent or damaged, or a later version wrote it.
    """
    try:
        facts = checked(read_json(folder / FILE), Mapping[str, Any])
        later = checked(facts.get("kerasft"), int) > FORMAT
        read = ExportFacts.from_json(facts)
    except FileNotFoundError as error:
        raise UserError(
            f"{folder}: has no {FILE}, which says what the model takes and what its scores mean. "
            "Copy the whole folder of the export, or export again."
        ) from error
    except (OSError, ValueError) as error:
        raise UserError(f"{folder / FILE}: is damaged ({error}). Export again.") from error
    if later:
        raise UserError(
            f"{folder}: was exported by kerasft {read.versions.get('kerasft')}, which writes a "
            f"later form of {FILE} than kerasft {__version__} reads. Update kerasft."
        )
    return read
