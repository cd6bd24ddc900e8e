"""A run folder: nothing is lost on `kill -9`, and what cannot be done touches nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from tellapart import api
from tellapart.errors import ConfigError, RunError, TrainingError
from tellapart.runtime.console import Console
from tellapart.training.run import Run

QUIET = Console(quiet=True)
FAST = {"epochs": 1, "batch_size": 128, "threads": 1, "dim": 16, "log_every": 2, "console": QUIET}
COMMAND = [
    sys.executable, "-m", "tellapart", "train", "instdisc", "--data", "digits", "--epochs", "12",
    "--batch-size", "64",
    "--threads", "1", "--dim", "16", "--log-every", "5", "--save-every", "10",
]  # fmt: skip


def _train(out, **options):
    return api.train("instdisc", data="digits", out=out, **(FAST | options))


def _bytes(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def _numbers(run):
    return [
        {k: v for k, v in row.items() if k not in ("seconds", "items_per_second")}
        for row in run.metrics()
    ]


def test_kill_and_resume_equals_an_uninterrupted_run(tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    subprocess.run([*COMMAND, "--out", str(whole)], check=True, capture_output=True)
    process = subprocess.Popen([*COMMAND, "--out", str(broken)], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not (len(Run.open(broken).metrics()) > 5 if (broken / "run.json").exists() else False):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    step = Run.open(broken).load()["step"]
    assert 0 < step < 264  # the kill came in the middle: 22 steps an epoch, 12 epochs
    assert Run.open(broken).manifest["status"] == "running"
    done = subprocess.run(
        [*COMMAND, "--out", str(broken), "--resume"], check=True, capture_output=True, text=True
    )
    assert f"after step {step}" in done.stderr
    a, b = Run.open(whole), Run.open(broken)
    assert (whole / "encoder/model.safetensors").read_bytes() == (
        broken / "encoder/model.safetensors"
    ).read_bytes()
    first, second = a.load(), b.load()
    assert first["step"] == second["step"] == 264
    for part in ("encoder", "objective"):
        assert all(torch.equal(first[part][k], second[part][k]) for k in first[part])
    assert str(first["optimizer"]) == str(second["optimizer"])
    assert _numbers(a) == _numbers(b)
    assert len(_numbers(a)) == 53


def test_ctrl_c_saves(tmp_path):
    out = tmp_path / "run"
    process = subprocess.Popen(
        [*COMMAND, "--out", str(out), "--save-every", "10000"], stderr=subprocess.PIPE, text=True
    )
    while not (out / "metrics.jsonl").exists() or len(Run.open(out).metrics()) < 3:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "--resume goes on from there" in said
    run = Run.open(out)
    assert run.manifest["status"] == "interrupted"
    assert run.load()["step"] >= 15


def test_a_finished_run_is_left_as_it_is(tmp_path):
    _train(tmp_path / "run")
    before = _bytes(tmp_path / "run")
    again = _train(tmp_path / "run", resume=True)
    assert not again.trained
    assert _bytes(tmp_path / "run") == before


def test_resume_without_a_checkpoint_starts_fresh(tmp_path):
    assert _train(tmp_path / "run", resume=True).trained


def test_a_resumption_does_not_need_the_weights_it_started_from(tmp_path):
    from tellapart.training import session
    from tellapart.training.resolve import open_for, resolve, training_part
    from tellapart.training.trainer import Trainer

    _train(tmp_path / "first")
    weights = tmp_path / "weights.safetensors"
    weights.write_bytes((tmp_path / "first" / "encoder" / "model.safetensors").read_bytes())
    options = {k: v for k, v in FAST.items() if k != "console"} | {"init": str(weights)}
    _train(tmp_path / "whole", init=str(weights))
    settings = resolve("instdisc", "digits", None, None, options)
    source = open_for("digits", settings)
    trainer = Trainer("instdisc", settings, training_part(source, settings))
    run = Run.create(
        tmp_path / "part", session.manifest("instdisc", settings, source, trainer.source)
    )
    next(iter(trainer))
    session.save(run, trainer)
    weights.unlink()
    _train(tmp_path / "part", resume=True, init=str(weights))
    whole, part = (Run.open(tmp_path / name).load()["encoder"] for name in ("whole", "part"))
    assert all(torch.equal(whole[k], part[k]) for k in whole)
    assert Run.open(tmp_path / "part").manifest["config"]["init"] == str(weights)


def test_torchrun_restarts_resume(tmp_path, monkeypatch):
    _train(tmp_path / "run")
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert not _train(tmp_path / "run").trained


def test_resuming_with_other_settings_or_data_names_them(tmp_path):
    _train(tmp_path / "run")
    before = _bytes(tmp_path / "run")
    with pytest.raises(RunError, match=r"--lr 0\.\d+ \(now 0\.5\)"):
        _train(tmp_path / "run", resume=True, lr=0.5)
    with pytest.raises(RunError, match=r"--objective.temperature .* \(now 0\.9\)"):
        _train(tmp_path / "run", resume=True, objective={"temperature": 0.9})
    with pytest.raises(RunError, match="the data"):
        api.train(
            "instdisc",
            data="scenes:digits",
            out=tmp_path / "run",
            resume=True,
            preset="instdisc_digits",
            **FAST,
        )
    assert _bytes(tmp_path / "run") == before


@pytest.mark.parametrize("resume", [True, False])
def test_a_run_that_died_before_its_manifest_starts_anew(tmp_path, resume):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / ".run.json.part").write_text("{")
    assert _train(tmp_path, resume=resume).steps > 0


def test_a_used_folder_is_refused_and_untouched(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(RunError, match="is not empty; add --resume"):
        _train(tmp_path)
    with pytest.raises(RunError, match="is a file"):
        _train(tmp_path / "mine.txt")
    with pytest.raises(RunError, match="is not empty"):
        _train(tmp_path, resume=True)
    assert _bytes(tmp_path) == {"mine.txt": b"mine"}


def test_a_truncated_checkpoint_is_an_error_and_stays(tmp_path):
    config = FAST | {"epochs": 2}
    _train(tmp_path / "run", **config)
    Run.open(tmp_path / "run").update(status="interrupted")
    last = tmp_path / "run/checkpoints/last.pt"
    last.write_bytes(last.read_bytes()[:1000])
    before = _bytes(tmp_path / "run")
    with pytest.raises(RunError, match=r"last.pt is damaged.*Nothing was changed"):
        _train(tmp_path / "run", resume=True, **config)
    assert _bytes(tmp_path / "run") == before


def test_a_damaged_manifest_and_another_format_are_errors(tmp_path):
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(RunError, match="is damaged"):
        Run.open(tmp_path)
    (tmp_path / "run.json").write_text(json.dumps({"format": 99}))
    with pytest.raises(RunError, match="is a run of format 99"):
        Run.open(tmp_path)
    with pytest.raises(RunError, match="is not a run"):
        Run.open(tmp_path / "nowhere")


FULL_DISK = """
import resource, signal, sys
from tellapart import api
from tellapart.runtime.console import Console
from tellapart.training.run import Run
quiet = Console(quiet=True)
options = dict(batch_size=128, threads=1, dim=16, save_every=5, console=quiet)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
real = Run.save
def limited(self, state, *rest):
    if state["step"] == 10:
        # no file may grow beyond this limit, as on a full disk
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
    real(self, state, *rest)
Run.save = limited
try:
    api.train("instdisc", data="digits", out=sys.argv[1], epochs=3, **options)
except Exception as error:
    print(type(error).__name__, error)
"""


@pytest.mark.skipif(
    sys.platform != "linux", reason="limits the size of files through Linux's setrlimit"
)
def test_a_full_disk_is_an_error_and_the_previous_checkpoint_survives(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path / "run")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("RunError cannot write"), done.stdout + done.stderr
    assert "Earlier files are intact" in done.stdout
    assert Run.open(tmp_path / "run").load()["step"] == 5
    assert not list((tmp_path / "run").rglob("*.part"))


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path, monkeypatch):
    if os.geteuid() == 0:  # root may write anywhere: a file in the way stands for the missing right
        (tmp_path / "locked").write_text("")
        place = tmp_path / "locked" / "run"
    else:
        (tmp_path / "locked").mkdir(mode=0o500)
        place = tmp_path / "locked" / "run"
    with pytest.raises(RunError, match="cannot"):
        _train(place)


def test_a_loss_that_is_not_a_number_names_the_batch(tmp_path, monkeypatch):
    from tellapart.functional import losses

    real, calls = losses.instance_softmax, []

    def broken(*args, **kwargs):
        calls.append(1)
        return real(*args, **kwargs) * (float("nan") if len(calls) > 12 else 1.0)

    monkeypatch.setattr(losses, "instance_softmax", broken)
    with pytest.raises(TrainingError, match="is not a number"):
        _train(tmp_path / "run", epochs=3, save_every=2)
    manifest = Run.open(tmp_path / "run").manifest
    assert manifest["status"] == "failed"
    assert len(manifest["bad_batch"]) == 128
    assert Run.open(tmp_path / "run").load()["step"] > 0


def test_a_collapse_is_said_while_it_happens(tmp_path, monkeypatch, capsys):
    from tellapart.training.trainer import Trainer

    real = Trainer.measure

    def collapsed(self, step):
        return real(self, step) | ({"std": 0.01, "effective_rank": 1.0} if step.number > 10 else {})

    monkeypatch.setattr(Trainer, "measure", collapsed)
    found = _train(tmp_path / "run", epochs=4, console=Console())
    assert "collapsed since step 12" in found.verdict
    assert (
        capsys.readouterr().err.count("collapsed since step 12") == 2
    )  # once while it happens, once at the end


def test_run_json_says_what_was_decided(tmp_path):
    _train(tmp_path / "run", tensorboard=True)
    run = Run.open(tmp_path / "run")
    assert run.manifest["status"] == "finished"
    assert run.manifest["data"]["trained_on"] == 1437
    assert run.manifest["hardware"]["precision"] in ("float32", "bfloat16")
    assert run.manifest["config"]["objective"]["temperature"] > 0
    assert {"loss", "chance", "lr", "seconds", "items_per_second"} <= run.metrics()[-1].keys()
    assert any((tmp_path / "run/tensorboard").iterdir())
    names = {p.name for p in (tmp_path / "run/encoder").iterdir()}
    assert names == {"model.safetensors", "config.json", "preprocessor.json", "README.md"}
    card = (tmp_path / "run/encoder/README.md").read_text()
    assert "The weights are yours" in card
    assert str(tmp_path) not in card


def test_only_three_encoders_are_kept(tmp_path):
    _train(tmp_path / "run", epochs=3, save_every=3)
    kept = sorted(p.name for p in (tmp_path / "run/checkpoints").iterdir())
    assert kept[:2] == ["best-unlabelled.pt", "last.pt"]
    assert len(kept) == 5


def test_settings_of_a_wrong_name_come_with_the_nearest(tmp_path):
    with pytest.raises(ConfigError, match="did you mean 'epochs'"):
        _train(tmp_path / "run", epoch=3)
    with pytest.raises(ConfigError, match="did you mean 'temperature'"):
        _train(tmp_path / "run", objective={"temprature": 0.1})
    with pytest.raises(ConfigError, match="did you mean 'instdisc'"):
        api.train("instdic", data="digits", out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
