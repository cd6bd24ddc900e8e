"""A run folder from anyone: every field of every file with hostile values, damage, and locks."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from hostile_corpus import places, replaced

from tellapart import api
from tellapart.data import modality_of
from tellapart.errors import RunError, TellapartError
from tellapart.exporters.export import export
from tellapart.runtime import files, schemas
from tellapart.runtime.console import Console
from tellapart.training import loading
from tellapart.training.run import Run

QUIET = Console(quiet=True)
OPTIONS = {
    "data": "digits", "steps": 2, "save_every": 1, "log_every": 1, "batch_size": 64, "dim": 8,
    "width": 8, "threads": 1, "console": QUIET,
}  # fmt: skip
PAYLOAD = "32\nopen('PWNED', 'w').write('code ran')\n#"
HOSTILE = (
    None, True, -1, 1.5, 10**30, 1e308, "", "x", PAYLOAD, "'; import os #", "@mean@", "\x1b[2J\n",
    [], [1], ["x"], {}, {"a": {"b": []}}, "x" * 10_000,
)  # fmt: skip


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    api.train("instdisc", out=folder, **OPTIONS)
    score = {"value": 0.9, "low": 0.8, "high": 1.0, "note": ""}
    Run.open(folder).save_evaluation(
        {
            "protocol": "eval-v2", "verdict": "good", "headline": "a", "baselines": ["b"],
            "comparisons": [], "counts": {"train": 5, "test": 5},
            "scores": {"a": {"knn@200": score}, "b": {"knn@200": score}},
            "geometry": {"a": {"std": 0.5}}, "fingerprint": "f", "step": 2,
        }
    )  # fmt: skip
    return folder


@pytest.fixture
def run(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "run")
    return tmp_path / "run"


def _use(folder):
    """Read everything of a run, as the commands do."""
    opened = Run.open(folder)
    loading.config_of(opened)
    loading.load_encoder(opened)
    opened.evaluation()
    opened.metrics()
    opened.load()
    api.compare([folder], console=QUIET)


@pytest.mark.parametrize(
    "name", ["run.json", "encoder/config.json", "encoder/preprocessor.json", "eval.json"]
)
def test_hostile_values_in_every_field_end_in_words_or_do_nothing(run, name, monkeypatch):
    """With and without the digests, which an attacker would write anew."""
    monkeypatch.chdir(run)
    manifest = json.loads((run / "run.json").read_text())
    manifest.pop("files")
    (run / "run.json").write_text(json.dumps(manifest))
    whole = json.loads((run / name).read_text())
    errors = []
    for number, path in enumerate(places(whole)):
        for new in HOSTILE[number % 3 :: 3]:
            (run / name).write_text(json.dumps(replaced(whole, path, new)))
            try:
                _use(run)
            except TellapartError as error:
                errors.append(str(error))
    assert len(errors) > 20
    assert max(map(len, errors)) < 3000
    assert not [text for text in errors if "\x1b" in text]
    assert not (run / "PWNED").exists()


@pytest.mark.parametrize("field", ["size", "channels", "width", "dim", "encoder", "head_kind"])
def test_no_value_of_a_description_runs_code_at_export(run, tmp_path, monkeypatch, field):
    monkeypatch.chdir(tmp_path)
    manifest = json.loads((run / "run.json").read_text())
    manifest.pop("files")
    (run / "run.json").write_text(json.dumps(manifest))
    about = json.loads((run / "encoder/config.json").read_text()) | {"small_stem": False}
    for number, new in enumerate((PAYLOAD, [PAYLOAD], {PAYLOAD: 1}, "@std@", 10**9)):
        (run / "encoder/config.json").write_text(json.dumps(about | {field: new}))
        with pytest.raises(TellapartError):
            export(run, out=tmp_path / f"out{number}", console=QUIET)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["run"]


@pytest.mark.parametrize(
    ("field", "new", "said"),
    [
        (("config", "steps"), "2", "run.json: config.steps: expected"),
        (("config", "area"), ["x", 1.0], r"run.json: config.area\[0\]: expected"),
        (("config", "objective", "temperature"), [], "run.json: config.objective.temperature"),
        (("data", "items"), -1, "run.json: data.items: expected"),
        (("data",), [], "run.json: data: expected object"),
        (("method",), 5, "run.json: method: expected str"),
        (("files",), {"a": "b"}, "run.json: files"),
    ],
)
def test_an_error_names_the_file_and_the_field(run, field, new, said):
    manifest = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(replaced(manifest, field, new)))
    with pytest.raises(RunError, match=said):
        loading.config_of(Run.open(run))


@pytest.mark.parametrize(
    "text", ["", "{", "[1]", "5", "null", "[" * 100_000, '{"a": NaN}', "\udc8f"]
)
@pytest.mark.parametrize("name", ["run.json", "encoder/config.json", "eval.json"])
def test_what_is_no_json_object_names_the_file(run, name, text):
    (run / name).write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(RunError, match=Path(name).name):
        _use(run)


@pytest.mark.parametrize(
    "tail", [b'{"step": 3, "lo', b"\x8f\xff", b"5\n", b"[1]\n", b"{}\n", b"null\n", b"[" * 9999]
)
def test_a_torn_last_line_of_metrics_is_cut(run, tail):
    before = Run.open(run).metrics()
    with open(run / "metrics.jsonl", "ab") as file:
        file.write(tail)
    opened = Run.open(run)
    assert opened.metrics() == before
    opened.cut_metrics(10)
    assert (run / "metrics.jsonl").read_bytes().count(b"\n") == len(before)


@pytest.mark.parametrize("line", [b'{"step": "x", "loss": 1}', b'{"step": 1, "loss": "x"}'])
def test_a_wrong_type_in_metrics_names_file_line_and_field(run, line):
    manifest = json.loads((run / "run.json").read_text())
    manifest.pop("metrics")
    (run / "run.json").write_text(json.dumps(manifest))
    (run / "metrics.jsonl").write_bytes(line + b"\n")
    with pytest.raises(RunError, match=r"metrics.jsonl: line 1: (step|loss): expected"):
        Run.open(run).metrics()


READ = {
    "checkpoints/last.pt": lambda r: r.load(),
    "checkpoints/best-unlabelled.pt": lambda r: r.checkpoint("best-unlabelled"),
    "encoder/model.safetensors": lambda r: r.encoder_files(),
    "encoder/config.json": lambda r: r.description(),
    "eval.json": lambda r: r.evaluation(),
    "metrics.jsonl": lambda r: r.metrics(),
}


@pytest.mark.parametrize("name", READ)
def test_one_flipped_bit_is_noticed(run, name):
    file = run / name
    whole = file.read_bytes()
    READ[name](Run.open(run))
    for part in (0.1, 0.5, 0.9):
        raw = bytearray(whole)
        raw[int(part * (len(raw) - 1))] ^= 4
        file.write_bytes(raw)
        with pytest.raises(RunError, match=f"{Path(name).name}"):
            READ[name](Run.open(run))
        with pytest.raises(RunError):
            Run.open(run).verify()
    file.write_bytes(whole)
    assert len(Run.open(run).verify()) >= 8


def test_a_damaged_encoder_of_a_finished_run_is_written_again(run):
    weights = run / "encoder/model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1] + b"x")
    with pytest.raises(RunError, match=r"damaged.*--resume.*writes it again"):
        loading.load_encoder(Run.open(run))
    api.train("instdisc", out=run, resume=True, **OPTIONS)
    assert weights.read_bytes() == whole
    assert Run.open(run).manifest["status"] == "finished"


def test_a_run_of_an_older_version_opens_and_resumes(run):
    manifest = json.loads((run / "run.json").read_text())
    for name in ("files", "metrics", "steps", "threads", "notes"):
        manifest.pop(name, None)
    manifest["status"] = "interrupted"
    (run / "run.json").write_text(json.dumps(manifest))
    _use(run)
    api.train("instdisc", out=run, resume=True, **OPTIONS)
    assert Run.open(run).manifest["status"] == "finished"


@pytest.mark.parametrize(
    ("field", "new"),
    [
        ("format", "x"), ("step", "x"), ("step", -1), ("encoder", []), ("objective", {"a": 5}),
        ("optimizer", None), ("shards", 10**9), ("sharded", "x"), ("sharded", [5]),
    ],
)  # fmt: skip
def test_hostile_metadata_of_a_checkpoint_end_in_words(run, field, new):
    state = torch.load(run / "checkpoints/last.pt", weights_only=True)
    torch.save(state | {field: new}, run / "checkpoints/last.pt")
    manifest = json.loads((run / "run.json").read_text())
    manifest["files"].pop("checkpoints/last.pt")
    (run / "run.json").write_text(json.dumps(manifest))
    with pytest.raises(RunError, match=r"last.pt is (damaged|a checkpoint)"):
        Run.open(run).load()


def test_a_network_larger_than_its_weights_is_never_built(run):
    about = json.loads((run / "encoder/config.json").read_text()) | {"width": 60_000}
    (run / "encoder/config.json").write_text(json.dumps(about))
    manifest = json.loads((run / "run.json").read_text())
    manifest.pop("files")
    (run / "run.json").write_text(json.dumps(manifest))
    with pytest.raises(RunError, match=r"config.json describes a network of other shapes"):
        loading.load_encoder(Run.open(run))


def test_reading_needs_no_writing(run, monkeypatch):
    def refused(*_args, **_options):
        raise RunError("cannot write")

    monkeypatch.setattr(files, "stage", refused)
    monkeypatch.setattr(files, "append", refused)
    _use(run)


# locks ------------------------------------------------------------------------------------------

HOLD = """
import sys, time
from tellapart.training.run import Run
with Run.open(sys.argv[1], for_training=True):
    print("ready", flush=True)
    time.sleep(600)
"""


def test_a_run_in_use_is_left_alone_and_read(run):
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(run)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout.readline() == "ready\n"
        before = {p: p.read_bytes() for p in run.rglob("*") if p.is_file()}
        with pytest.raises(RunError, match=f"is in use by process {holder.pid}"):
            api.train("instdisc", out=run, resume=True, **OPTIONS)
        assert {p: p.read_bytes() for p in run.rglob("*") if p.is_file()} == before
        _use(run)
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    assert not api.train("instdisc", out=run, resume=True, **OPTIONS).trained
    assert not (run / ".lock").exists()


UPDATE = """
import sys
from tellapart.training.run import Run
run = Run.open(sys.argv[1])
for i in range(20):
    run.update(**{sys.argv[2]: i})
"""


def test_two_processes_that_write_run_json_lose_nothing(run):
    fields = ("one", "two")
    writers = [
        subprocess.Popen([sys.executable, "-c", UPDATE, str(run), field]) for field in fields
    ]
    assert [w.wait(120) for w in writers] == [0, 0]
    manifest = Run.open(run).manifest
    assert [manifest[field] for field in fields] == [19, 19]
    assert not list(run.glob(".*"))


def test_a_folder_that_another_process_begins_is_in_use(tmp_path):
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom tellapart.runtime.locks import Lock\n"
        "Path(sys.argv[1]).mkdir()\nassert Lock(Path(sys.argv[1]) / '.lock').acquire()\n"
        "print('ready', flush=True)\ntime.sleep(600)"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "run")], stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout.readline() == "ready\n"
        manifest = {"method": "simclr", "config": {}, "data": {"name": "x"}}
        with pytest.raises(RunError, match=f"is in use by process {holder.pid}"):
            Run.create(tmp_path / "run", manifest)
    finally:
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait()
    with Run.create(tmp_path / "run", manifest) as made:
        assert made.manifest["status"] == "running"
    assert time.time() - made.manifest["heartbeat"] < 60


@pytest.mark.parametrize("kind", ["images", "audio", "series", "text"])
def test_the_settings_of_every_kind_of_data_are_checked(kind):
    configuration = modality_of(kind).configuration
    made = configuration().to_dict()
    schemas.check_fields(made, configuration, "run.json", at="config")
    views = type(configuration().views)
    schemas.check_fields(made, views, "run.json", at="config")
    number = next(n for n in made if isinstance(made[n], float) and n in _fields(views))
    with pytest.raises(RunError, match=f"config.{number}: expected"):
        schemas.check_fields(made | {number: "x"}, views, "run.json", at="config")


def _fields(kind):
    return {field.name for field in dataclasses.fields(kind)}


def test_every_schema_takes_what_is_written(finished):
    schemas.check_manifest(json.loads((finished / "run.json").read_text()), "run.json")
    for name, check in (
        ("encoder/config.json", schemas.check_encoder), ("eval.json", schemas.check_evaluation),
    ):  # fmt: skip
        check(json.loads((finished / name).read_text()), name)
