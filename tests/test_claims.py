"""docs/claims.md is what the committed results of the studies say."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
STUDIES = ROOT / "studies"


def test_the_page_of_claims_is_written_from_the_results():
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    done = subprocess.run(
        [sys.executable, "claims.py", "--check"],
        cwd=STUDIES,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_training_of_the_ledger_is_whole():
    file = STUDIES / "trainings.jsonl"
    entries = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    assert len({entry["key"] for entry in entries}) == len(entries)
    for entry in entries:
        assert {"features", "embedding", "logistic"} <= entry["scores"].keys()
        assert entry["commit"]
        assert entry["steps"] > 0
