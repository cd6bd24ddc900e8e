"""Pairs of sentences that belong together, of what Debian says of its packages.

    python scripts/prepare_pairs.py FILE.tsv

The one-line description of each installed package and the first sentence of its long one. To judge
retrieval with: `tellapart eval RUN --data FILE.tsv`.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path


def pairs() -> list[tuple[str, str]]:
    """(short, first long sentence) of every installed package that has both, each once."""
    command = ["dpkg-query", "-W", "-f", "${binary:Package}\x01${Description}\x02"]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found: dict[str, str] = {}
    for entry in text.split("\x02"):
        _, _, description = entry.partition("\x01")
        short, _, long = description.partition("\n")
        first = re.split(r"(?<=[.!?])\s", " ".join(long.split()))[0]
        if len(short.split()) > 2 and len(first.split()) > 5:
            found.setdefault(first, short)  # packages of one source share their sentences
    once = {short: first for first, short in found.items()}
    return sorted(once.items())


def main() -> None:
    """Write the file that the command line names."""
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    rows = pairs()
    Path(sys.argv[1]).write_text("".join(f"{a}\t{b}\n" for a, b in rows), encoding="utf-8")
    print(len(rows), "pairs in", sys.argv[1])


if __name__ == "__main__":
    main()
