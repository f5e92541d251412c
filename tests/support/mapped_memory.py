"""Memory that a process has mapped of a file, on Linux."""

from pathlib import Path

SMAPS = Path("/proc/self/smaps")


def mapped_bytes(path: Path) -> int:
    """Returns how much of a file this process has in memory through memory maps."""
    total, counts = 0, False
    for line in SMAPS.read_text().splitlines():
        name, _, rest = line.partition(" ")
        if "-" in name and not name.endswith(":"):
            counts = rest.endswith(str(path))
        elif counts and name == "Rss:":
            total += 1024 * int(rest.split()[0])
    return total
