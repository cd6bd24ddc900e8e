"""A training killed before any of its writes ends, resumed, byte for byte as undisturbed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.skipif(sys.platform == "win32", reason="forks")
def test_a_kill_before_every_single_write_changes_nothing(tmp_path):
    script = Path(__file__).parents[1] / "kills.py"
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["faults"] == {}
    assert found["writes"] > 50
    assert {"checkpoints/last.pt", "encoder/model.safetensors", "metrics.jsonl"} <= set(
        found["files"]
    )
