"""Trainings without a method, and settings from a file: what is read, refused, and written back."""

from __future__ import annotations

import json

import numpy as np
import pytest

import tellapart as ta
from tellapart import cli
from tellapart.errors import ConfigError
from tellapart.training import config_file, presets, request
from tellapart.training.resolve import resolve


def _printed(capsys, *words):
    cli.main(["train", *map(str, words), "--print-config"])
    return capsys.readouterr().out


def _sentences(folder):
    file = folder / "sentences.txt"
    file.write_text("\n".join(f"sentence number {i} of a list" for i in range(40)))
    return file


def _series(folder):
    np.save(folder / "series.npy", np.zeros((6, 2, 300), np.float32))
    return folder / "series.npy"


@pytest.mark.parametrize(
    ("make", "method"),
    [(lambda f: "digits", "simclr"), (_sentences, "simcse"), (_series, "cpc")],
    ids=["images", "text", "series"],
)
def test_the_recommended_method_follows_from_the_kind_of_the_data(tmp_path, make, method):
    data = str(make(tmp_path))
    assert request.of(None, data).method == presets.recommended(data) == method
    assert f"method {method}, recommended for" in request.of(None, data).why


def test_a_training_without_a_method_says_which_it_takes_and_why(capsys, tmp_path):
    out = str(tmp_path / "r")
    cli.main(["train", "--data", "digits", "--out", out, "--steps", "1", "--threads", "1"])
    said = capsys.readouterr().err
    assert "method simclr, recommended for images: " in said
    assert said.index("recommended for images") < said.index("1,437 images")
    assert ta.Run.open(out).manifest["method"] == "simclr"
    cli.main(
        ["train", "--data", "digits", "--out", out, "--steps", "1", "--threads", "1", "--resume"]
    )
    assert "is finished" in capsys.readouterr().err


def test_a_resumed_run_keeps_its_method(tmp_path):
    out = tmp_path / "r"
    ta.train("spread", data="digits", out=out, steps=1, threads=1)
    assert request.of(None, "digits", resumed=out).method == "spread"
    assert not ta.train(data="digits", out=out, steps=1, threads=1, resume=True).trained


@pytest.mark.parametrize(
    "words",
    [
        ["--data", "digits"],
        ["instdisc", "--data", "digits", "--lr", "1e-4", "--lr-steps", "0.3", "0.9"],
        ["moco", "--data", "scenes:digits", "--temperature", "0.3", "--area", "0.3", "0.9"],
        ["cpc", "--data", "audio:calls/", "--kernels", "10", "8", "4", "4", "4"],
        ["--data", "text:lines.txt", "--dropout", "0.2"],
        ["--data", "cifar10", "--preset", "simclr_cifar10", "--steps", "7"],
        ["--data", "digits", "--minutes", "3"],
        ["supcon", "--data", "photos.csv", "--columns", "image=file,label=kind"],
    ],
    ids=" ".join,
)
def test_printed_settings_are_read_back_to_the_same_settings(capsys, tmp_path, words):
    printed = _printed(capsys, *words)
    (tmp_path / "c.yaml").write_text(printed)
    assert _printed(capsys, "--config", tmp_path / "c.yaml") == printed
    asked = request.of(None, None, config=tmp_path / "c.yaml")
    back = resolve(asked.method, asked.data, asked.preset, asked.config, asked.options)
    assert config_file.text(asked.method, asked.data, back) == printed


def test_a_run_is_a_file_of_settings_and_flags_stand_above_it(capsys, tmp_path):
    out = tmp_path / "r"
    ta.train("spread", data="digits", out=out, steps=1, threads=1, temperature=0.31, jitter=0.2)
    for file in (out / "run.json", out):
        printed = _printed(capsys, "--config", file, "--temperature", "0.5", "--lr", "0.7")
        (tmp_path / "c.yaml").write_text(printed)
        read = config_file.read(tmp_path / "c.yaml")
        assert (read.method, read.data) == ("spread", "digits")
        assert read.settings["objective"]["temperature"] == 0.5
        assert (read.settings["lr"], read.settings["jitter"]) == (0.7, 0.2)
    ta.train(data="digits", out=tmp_path / "again", config=out / "run.json")
    old, new = (ta.Run.open(p).manifest["config"] for p in (out, tmp_path / "again"))
    assert old == new


@pytest.mark.parametrize(
    ("text", "options", "length"),
    [
        ("minutes: 3", {"epochs": 2}, (None, 2)),
        ("epochs: 3", {"minutes": 2}, (2, None)),
        ("steps: 3", {"minutes": 2}, (2, None)),
    ],
)
def test_the_length_of_an_argument_replaces_that_of_a_file(tmp_path, text, options, length):
    (tmp_path / "c.yaml").write_text(f"data: digits\n{text}\n")
    asked = request.of(None, None, config=tmp_path / "c.yaml", options=options)
    made = resolve(asked.method, asked.data, asked.preset, asked.config, asked.options)
    assert (made.minutes, made.epochs if made.minutes is None else None) == length


def test_arguments_stand_above_a_file_in_every_spelling(tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text("method: simclr\ndata: digits\ntemperature: 0.2\nepochs: 3\n")
    for options in ({"temperature": 0.4}, {"objective": {"temperature": 0.4}}):
        asked = request.of(None, None, config=file, options=options)
        settings = resolve(asked.method, asked.data, asked.preset, asked.config, asked.options)
        assert (settings.objective.temperature, settings.epochs) == (0.4, 3)


BAD = [
    ("data: digits\nepohcs: 3\n", "c.yaml: unknown setting 'epohcs'; did you mean 'epochs'?"),
    ("data: digits\nlr: fast\n", "c.yaml: lr: expected float, got str"),
    ("data: digits\nflip: true\n", "c.yaml: flip: expected float, got bool"),
    ("data: digits\nsteps: 1.5\n", "c.yaml: steps: expected int"),
    ("data: digits\nbn: none\n", "c.yaml: bn: invalid enum value"),
    ("data: digits\narea: [0.1]\n", "c.yaml: area: expected array of length 2"),
    ("data: digits\nlr: -1\n", "c.yaml: --lr must be above 0, got -1"),
    ("data: digits\nlr: .nan\n", "c.yaml: --lr must be"),
    ("data: digits\nobjective: {tau: 1}\n", "c.yaml: unknown setting 'objective.tau'"),
    ("data: digits\nobjective: {temperature: warm}\n", "c.yaml: objective.temperature: expected"),
    ("data: digits\nobjective: 3\n", "c.yaml: objective: expected"),
    ("data: [digits]\n", "c.yaml: data: expected"),
    ("method: 3\ndata: digits\n", "c.yaml: method: expected"),
    ("method: simclr\nepochs: 3\nepochs: 4\n", "'epochs' is given twice"),
    ("- a\n- b\n", "c.yaml holds no settings"),
    ("data: [\n", "c.yaml is not YAML or JSON"),
    ("fps: 2\n", "columns and fps belong to data"),
    ("epochs: 3\n", "--data must"),
    ("data: digits\nencoder: os:getcwd\n", "os:getcwd is not known here"),
    ("data: digits\nview: os:getcwd\n", "os:getcwd is not known here"),
    ("data: digits\nmethod: os:getcwd\n", "os:getcwd is not known here"),
]


@pytest.mark.parametrize(("text", "message"), BAD, ids=[m for _, m in BAD])
def test_a_bad_file_is_an_error_that_names_file_and_field(
    capsys, tmp_path, monkeypatch, text, message
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(SystemExit) as stop:
        cli.main(["train", "--config", "c.yaml", "--out", "x"])
    assert stop.value.code == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


def test_a_missing_file_and_a_broken_run_are_errors(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        config_file.read(tmp_path / "none.yaml")
    (tmp_path / "run.json").write_text(json.dumps({"method": 1, "config": {}, "data": {}}))
    with pytest.raises(ConfigError, match="method: expected"):
        config_file.read(tmp_path / "run.json")


@pytest.mark.parametrize("number", ["1e-3", "1.e-3", "+1E-3", "-1e3", ".5e2"])
def test_numbers_with_an_exponent_are_numbers(tmp_path, number):
    (tmp_path / "c.yaml").write_text(f"lr: {number}\n")
    assert config_file.read(tmp_path / "c.yaml").settings["lr"] == float(number)


def test_the_code_of_a_file_is_run_if_a_flag_names_it_too(tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text("data: digits\nencoder: os:getcwd\n")
    asked = request.of(None, None, config=file, options={"encoder": "small-resnet"})
    assert asked.options["encoder"] == "small-resnet"
