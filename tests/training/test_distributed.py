"""Two processes with half the batch each match one process with all of it; multi-rank runs."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import ranks
import torch
from cases import CASES

from tellapart.runtime import distributed

HERE = Path(__file__).parents[1]


def _port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def _start(command, world=2, **more):
    """The same command as every rank of a group, as torchrun would start it."""
    shared = {
        "WORLD_SIZE": str(world),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(_port()),
        "OMP_NUM_THREADS": "1",
    }
    return [
        subprocess.Popen(
            command, env=os.environ | shared | {"RANK": str(r), "LOCAL_RANK": str(r)},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **more,
        )
        for r in range(world)
    ]  # fmt: skip


def _end(processes, limit=200):
    return [(*p.communicate(timeout=limit), p.returncode) for p in processes]


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    for _, err, code in _end(_start([sys.executable, str(HERE / "ranks.py"), str(folder)])):
        assert code == 0, err
    return [torch.load(folder / f"{r}.pt") for r in (0, 1)]


@pytest.mark.parametrize("name", ranks.SHARED)
def test_two_ranks_equal_one(pair, digits, name):
    """Loss and every gradient to 1e-5, given the same batch; the memory afterwards is the same."""
    source = digits.split("train").subset(range(0, 200))
    one = ranks.step(name, source, ranks.ORDER, list(range(200)))
    for two in (pair[0][name], pair[1][name]):
        torch.testing.assert_close(two["loss"], one["loss"], rtol=1e-5, atol=1e-7)
        torch.testing.assert_close(two["gradients"], one["gradients"], rtol=1e-5, atol=1e-7)
        torch.testing.assert_close(two["writes"], one["writes"])
    for key, value in one["state"].items():
        halves = [pair[r][name]["state"][key] for r in (0, 1)]
        if key == "bank.rows":
            torch.testing.assert_close(torch.stack(halves, 1).flatten(0, 1), value)
        else:
            assert torch.equal(halves[0], halves[1])
            torch.testing.assert_close(halves[0], value)


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    folder = tmp_path_factory.mktemp("three")
    for _, err, code in _end(_start([sys.executable, str(HERE / "ranks.py"), str(folder)], 3)):
        assert code == 0, err
    return [torch.load(folder / f"{r}.pt") for r in range(3)]


@pytest.mark.parametrize("name", ranks.TRAININGS)
def test_a_training_of_several_processes_is_that_of_one(pair, three, name):
    """Same instances, views, noise and memory in every step, from the seed alone."""
    one = ranks.training(name)
    for found in [two["trainings"][name] for two in pair] + [rank[name] for rank in three]:
        assert found["losses"] == pytest.approx(one["losses"], rel=1e-4)
        apart = (found["weights"] - one["weights"]).norm() / one["moved"]
        assert float(apart) < 1e-2  # of what the training moved; rounding grows with every step


def test_the_collectives_do_what_they_say(pair):
    a, b = pair[0]["collectives"], pair[1]["collectives"]
    everyone = torch.tensor([[0.0, 1], [2, 3], [10, 11], [12, 13]])
    assert torch.equal(a["gathered"], everyone)
    assert torch.equal(b["others"], everyone[:2])
    assert torch.equal(
        b["gradient"], 3 * torch.tensor([[4.0, 5], [6, 7]])
    )  # both ranks' losses: 1 + 2 times
    assert torch.equal(a["statistics"], torch.full((2,), 0.5))
    assert (
        a["errors"]
        == b["errors"]
        == ["the ranks have different data: rank 0: mine 0, rank 1: mine 1"]
    )
    assert (a["first"], b["first"]) == (False, True)
    assert a["shared"] == b["shared"] == "from 0"
    assert a["any"] == b["any"] == (True, False)
    assert float(a["mean"] + b["mean"]) / 2 == pytest.approx((1 + 2 + 2) / 3)


def test_moco_shuffles_over_ranks_what_batchnorm_would_give_away(pair):
    """Group statistics reveal the pairs unless keys are computed with rows of other ranks too."""
    assert pair[0]["leak"] == pair[1]["leak"]
    assert pair[0]["leak"][False] < -0.5
    assert abs(pair[0]["leak"][True]) < 0.15


def test_in_one_process_they_are_no_ops():
    x = torch.ones(2, 3)
    assert distributed.gather(x) is x
    assert distributed.others(x) is None
    assert (distributed.world(), distributed.rank(), distributed.is_main()) == (1, 0, True)
    assert list(distributed.mine(4)) == [0, 1, 2, 3]
    with distributed.joined(), distributed.main_first():
        distributed.barrier()
    distributed.require_same("data", "x")
    assert distributed.share("x") == "x"


# runs ---------------------------------------------------------------------------------------------

TRAIN = [sys.executable, "-m", "tellapart", "train", "instdisc", "--data", "digits", "--json"]


def _train(out, *more, world=2):
    return _start([*TRAIN, "--out", str(out), "--epochs", "6", "--save-every", "2", *more], world)


def test_a_run_of_two_ranks_resumes_with_two_and_with_one(tmp_path):
    for stdout, stderr, code in _end(_train(tmp_path / "whole")):
        assert code == 0, stderr
        assert stdout == "" or json.loads(stdout)["trained"]
    shards = sorted(p.name for p in (tmp_path / "whole" / "checkpoints").glob("shard-*"))
    assert shards == [f"shard-00000030-0000{r}-of-00002.pt" for r in (0, 1)]
    rows = [
        json.loads(line) for line in (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()
    ]
    assert [r["step"] for r in rows] == list(range(2, 31, 2))  # every checkpoint has a line

    killed = _train(tmp_path / "killed")
    deadline = time.monotonic() + 120
    while (
        not (tmp_path / "killed" / "checkpoints" / "last.pt").exists()
        and time.monotonic() < deadline
    ):
        time.sleep(0.02)
    killed[1].send_signal(signal.SIGKILL)
    (_, stderr, code), _ = _end(killed, 60)  # no hang: the other rank ends by itself
    assert code == 2
    assert "another process of this training ended" in stderr
    manifest = json.loads((tmp_path / "killed" / "run.json").read_text())
    assert manifest["status"] == "interrupted"
    assert "another process" in manifest["error"]
    subprocess.run(["cp", "-r", str(tmp_path / "killed"), str(tmp_path / "alone")], check=True)
    for _, stderr, code in _end(_train(tmp_path / "killed", "--resume")):
        assert code == 0, stderr
    whole, again = (
        torch.load(tmp_path / n / "checkpoints" / "last.pt") for n in ("whole", "killed")
    )
    assert all(
        torch.equal(whole["encoder"][k], again["encoder"][k])
        for k in whole["encoder"]
        if "running" not in k
    )
    for _, stderr, code in _end(_train(tmp_path / "alone", "--resume", world=1)):
        assert code == 0, stderr
    alone = torch.load(tmp_path / "alone" / "checkpoints" / "last.pt")
    assert alone["objective"]["bank.rows"].shape == (1437, 128)
    assert not list((tmp_path / "alone" / "checkpoints").glob("shard-*"))


STOP = """
import os, signal, sys
from tellapart.training import session
real = session._Session._after
def after(self, step, seconds):
    real(self, step, seconds)
    if step.number == 13 and os.environ["RANK"] == "0":
        os.kill(os.getpid(), signal.SIGTERM)
session._Session._after = after
from tellapart.cli import main
main(sys.argv[1:])
"""


def test_a_polite_stop_between_checkpoints_changes_nothing(tmp_path):
    """SIGTERM after step 13 of 20, with a checkpoint every 10: saving leaves BatchNorm alone."""
    options = ["--epochs", "4", "--save-every", "10", "--log-every", "5", "--batch-size", "256"]
    for _, stderr, code in _end(_start([*TRAIN, "--out", str(tmp_path / "whole"), *options])):
        assert code == 0, stderr
    stopped = [sys.executable, "-c", STOP, *TRAIN[3:], "--out", str(tmp_path / "broken"), *options]
    assert {code for _, _, code in _end(_start(stopped))} == {130}
    manifest = json.loads((tmp_path / "broken" / "run.json").read_text())
    assert (manifest["status"], manifest["step"]) == ("interrupted", 13)
    again = [*TRAIN, "--out", str(tmp_path / "broken"), *options, "--resume"]
    for _, stderr, code in _end(_start(again)):
        assert code == 0, stderr
    for name in ("checkpoints/last.pt", "checkpoints/best-unlabelled.pt"):
        first, second = (
            torch.load(tmp_path / run / name, weights_only=True)["encoder"]
            for run in ("whole", "broken")
        )
        assert any("running_var" in name for name in first)
        assert [k for k in first if not torch.equal(first[k], second[k])] == []
    weights = "encoder/model.safetensors"
    assert (tmp_path / "whole" / weights).read_bytes() == (
        tmp_path / "broken" / weights
    ).read_bytes()
    rows = [
        [
            {k: v for k, v in json.loads(line).items() if k not in ("seconds", "items_per_second")}
            for line in (tmp_path / run / "metrics.jsonl").read_text().splitlines()
        ]
        for run in ("whole", "broken")
    ]
    assert rows[0] == rows[1]


def test_torchrun_starts_again_what_was_killed(tmp_path):
    """One of two workers is killed; torchrun restarts both, which resume by themselves."""
    out = tmp_path / "run"
    command = [*TRAIN, "--out", str(out), "--epochs", "6", "--save-every", "2", "--log-every", "2"]
    torchrun = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc-per-node",
        "2",
        "--max-restarts",
        "1",
    ]
    torchrun += ["--standalone", *command[1:]]
    process = subprocess.Popen(
        torchrun, env=os.environ | {"OMP_NUM_THREADS": "1"}, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 120
    while not (out / "checkpoints" / "last.pt").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    workers = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(int(workers[-1]), signal.SIGKILL)
    _, said = process.communicate(timeout=200)
    assert process.returncode == 0, said
    assert "exitcode: -9" in said
    manifest = json.loads((out / "run.json").read_text())
    assert manifest["status"] == "finished"
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [r["step"] for r in rows] == list(range(2, 31, 2))


def test_shards_written_by_two_are_read_by_three_and_by_one(tmp_path, monkeypatch):
    from tellapart.training.run import _own_rows, _shard

    rows = torch.arange(11.0)[:, None].expand(11, 2)
    for r in (0, 1):
        torch.save({"bank.rows": rows[r::2].clone()}, _shard(tmp_path, 4, r, 2))
    assert torch.equal(_own_rows(tmp_path, 4, 2)[0]["bank.rows"], rows)
    monkeypatch.setattr(distributed, "world", lambda: 3)
    for r in range(3):
        monkeypatch.setattr(distributed, "rank", lambda r=r: r)
        assert torch.equal(_own_rows(tmp_path, 4, 2)[0]["bank.rows"], rows[r::3])


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--batch-size", "1"], "is too small for 2 processes"),
        (["--bn", "global"], "--bn global over several processes requires GPUs"),
        (
            ["--objective.loss", "nce", "--objective.noise", "instance"],
            "use --objective.noise shared",
        ),
        (["--data", "nowhere/"], "does not exist"),
    ],
)
def test_what_cannot_be_done_ends_every_rank_with_its_error(tmp_path, more, said):
    found = _end(_train(tmp_path / "run", *more), 100)
    assert {code for _, _, code in found} == {2}
    assert all(said in err for _, err, _ in found)
    assert not (tmp_path / "run").exists()


def test_ranks_with_different_data_are_told(tmp_path):
    from PIL import Image

    for r in (0, 1):
        (tmp_path / str(r)).mkdir()
        for i in range(12):
            Image.new("RGB", (40, 40), (20 * i, 9 * r, 5)).save(tmp_path / str(r) / f"{i}.png")
    command = (
        f"{sys.executable} -m tellapart train simclr --data {tmp_path}/$RANK --out {tmp_path}/run"
    )
    found = _end(_start(["sh", "-c", command]), 100)
    assert {code for _, _, code in found} == {2}
    assert all("the ranks have different data" in err for _, err, _ in found)


def test_every_case_is_covered():
    assert set(CASES) - set(ranks.SHARED) == {"nce, per instance"}
