"""`--minutes`: the number of steps comes from the measured speed, and is kept on resuming."""

from __future__ import annotations

import json

import pytest

import tellapart as ta
from tellapart.errors import ConfigError
from tellapart.runtime.console import Console
from tellapart.training.trainer import Trainer

QUIET = Console(quiet=True)
SMALL = {"data": "digits", "width": 8, "batch_size": 64, "console": QUIET}


def at(monkeypatch, seconds):
    monkeypatch.setattr(Trainer, "seconds_per_step", lambda self: seconds)


def test_a_training_of_minutes_resumes_with_its_own_number_of_steps(tmp_path, monkeypatch):
    at(monkeypatch, 1.0)
    real = Trainer.advance

    def stopped(self):
        if self.number == 4:
            raise KeyboardInterrupt
        return real(self)

    monkeypatch.setattr(Trainer, "advance", stopped)
    with pytest.raises(KeyboardInterrupt):
        ta.train("simclr", out=tmp_path / "r", minutes=0.1, save_every=2, **SMALL)
    monkeypatch.setattr(Trainer, "advance", real)
    at(monkeypatch, 0.01)  # a faster machine
    trained = ta.train(
        "simclr", out=tmp_path / "r", minutes=0.1, save_every=2, resume=True, **SMALL
    )
    manifest = json.loads((tmp_path / "r/run.json").read_text())
    assert trained.steps == manifest["steps"] == 5
    assert manifest["config"]["minutes"] == 0.1


@pytest.mark.parametrize("other", [{"epochs": 2.0}, {"steps": 7}])
def test_minutes_beside_steps_or_epochs_are_refused(tmp_path, other):
    with pytest.raises(ConfigError, match="--minutes sets the number of steps"):
        ta.train("simclr", out=tmp_path / "r", minutes=1.0, **other, **SMALL)


@pytest.mark.parametrize("minutes", [0.0, -1.0, float("nan"), float("inf")])
def test_minutes_must_be_a_time(tmp_path, minutes):
    with pytest.raises(ConfigError, match="--minutes must be above 0"):
        ta.train("simclr", out=tmp_path / "r", minutes=minutes, **SMALL)
    assert not (tmp_path / "r").exists()
