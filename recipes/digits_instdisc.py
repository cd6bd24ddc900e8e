"""InstDisc on the plain digits over several seeds; writes digits_instdisc.json.

python recipes/digits_instdisc.py [SEED ...]
"""

from __future__ import annotations

import json
import sys
import tempfile
import time

from recipe import COMMIT, HERE, mean_std

from tellapart import api
from tellapart.runtime.console import Console
from tellapart.training.run import Run

COLUMNS = ("knn@1", "knn@200", "linear", "10 labels per class")


def main() -> None:
    """Train and score every seed and keep the whole table of each."""
    seeds = [int(a) for a in sys.argv[1:]] or [0, 1, 2]
    rows = []
    for seed in seeds:
        with tempfile.TemporaryDirectory() as folder:
            began = time.monotonic()
            quiet = Console(quiet=True)
            api.train("instdisc", data="digits", out=f"{folder}/run", seed=seed, console=quiet)
            result = api.evaluate(f"{folder}/run", console=quiet)
            run = Run.open(f"{folder}/run")
        rows.append(
            {
                "seed": seed,
                "seconds": round(time.monotonic() - began, 1),
                "hardware": run.manifest["hardware"],
            }
            | {"scores": result["scores"], "verdict": result["verdict"]}
        )
        print(seed, result["verdict"], flush=True)
    summary = {
        row: {c: mean_std([r["scores"][row][c]["value"] for r in rows]) for c in COLUMNS}
        for row in rows[0]["scores"]
    }
    command = f"python recipes/digits_instdisc.py {' '.join(map(str, seeds))}"
    made = {"command": command, "commit": COMMIT, "summary": summary, "seeds": rows}
    (HERE / "digits_instdisc.json").write_text(json.dumps(made, indent=1) + "\n")


if __name__ == "__main__":
    main()
