"""What `kerasft import-caffe` and `import-torch` leave on the screen."""

from collections.abc import Mapping
from typing import Any

from kerasft.errors import quoted


def import_text(result: Mapping[str, Any]) -> str:
    """What was written, what of the file was not used, and what to do next.

    Args:
        result: the object that the command prints with --json.
    """
    parts = [
        f"Wrote {result['file']} ({result['bytes'] / 1e6:,.0f} MB): {result['parameters']:,} "
        f"parameters of {result['backbone']}, {len(result['layers'])} layers."
    ]
    if "mean" in result:
        levels = ", ".join(f"{channel:.2f}" for channel in result["mean"])
        spread = ""
        if result["mean_spread"]:
            spread = f"; the mean image differs from it by {result['mean_spread']:.1f} at most"
        parts.append(f"Mean of blue, green, red: {levels}{spread}.")
    if result["left_out"]:
        parts.append("Does not fit, and is left out:")
        parts += [f"  {sentence}" for sentence in result["left_out"]]
    if result["unused"]:
        parts.append(f"Not used: {', '.join(map(quoted, result['unused']))}.")
    parts += ["", f"Next: kerasft train --data PHOTOS/ --weights {result['file']}"]
    return "\n".join(parts)
