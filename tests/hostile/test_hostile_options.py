"""Odd values of every option of every command: an error in words, and nothing is written."""

from __future__ import annotations

import hostile_corpus as corpus
import pytest
from hostile_corpus import random_of, save
from hostile_harness import ROUNDS, call

from tellapart import cli
from tellapart.errors import TrainingError
from tellapart.training import session

VALUES = (
    "", " ", "-1", "0", "1e20", "1e400", "nan", "inf", "-inf", "9" * 30, "-" + "9" * 30, "x",
    "true", "None", "[]", "{}", "1,2,3", "\x1b[2J", "\u0663", "\ud800", "a\nb", "../../etc/passwd",
    "/dev/null", "/dev/zero", ".", "x" * 5000, "0x10", "1_000", "+5", "1.5", "--", "@x", "$(id)",
    "a b", "*",
)  # fmt: skip
METHODS = {"instdisc": "photos", "simclr": "photos", "moco": "photos", "supcon": "photos",
           "cpc": "series", "simcse": "text.txt"}  # fmt: skip
ACCEPTED = "the options are accepted"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Pictures, sentences, series, vectors and weights to use the options on."""
    root = tmp_path_factory.mktemp("options")
    for i in range(6):
        save(root / f"photos/{i % 2}/{i}.png", corpus.picture("RGB-png", random_of("options", i)))
        save(root / f"series/{i}.csv", corpus.table("csv", random_of("options", i)))
    save(root / "vectors.npz", corpus.vectors("npz", random_of(0)))
    save(root / "w.pt", corpus.weights("pt", random_of(0)))
    save(root / "text.txt", corpus.text("txt", random_of(0)))
    return root


def _flags(*words):
    """The flags of a command that take a value."""
    options = cli._described(words[0], list(words[1:]))[2]
    taken = {"explore": {"host"}}.get(words[0], set())
    return [
        o.flag for o in options if not o.positional and o.type is not bool and o.name not in taken
    ]


def _value(number, random):
    return VALUES[(number * 7 + int(random.integers(len(VALUES)))) % len(VALUES)]


def _with(words, flag, value):
    """The words with another value of an option."""
    words = list(words)
    if flag in words:
        at = words.index(flag)
        del words[at : at + 2]
    return [*words, f"{flag}={value}"]


@pytest.mark.parametrize("seed", range(40 * ROUNDS))
@pytest.mark.parametrize("method", METHODS)
def test_odd_settings_of_a_training_end_in_words(tmp_path, monkeypatch, place, method, seed):
    def accepted(*_, **__):
        raise TrainingError(ACCEPTED)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(session, "train_into", accepted)
    random = random_of(method, seed)
    flags = _flags("train", method)
    flag = flags[(seed * 5 + int(random.integers(len(flags)))) % len(flags)]
    out = tmp_path / "run"
    words = ["train", method, "--data", place / METHODS[method], "--out", out, "--steps", 1]
    words += ["--batch-size", 4, "--dim", 8, "--threads", 1]
    words += [] if method == "simcse" else ["--width", 8]
    ended = call(*_with(words, flag, _value(seed, random)), keep=(place,))
    assert ended.status == 2
    if ACCEPTED not in ended.err:
        assert not list(tmp_path.iterdir()), f"{flag}: refused, but files were written"


COMMANDS = (
    ("inspect", "photos"),
    ("inspect", "series"),
    ("eval", "w.pt", "--data", "photos", "--width", 8, "--quick"),
    ("eval", "vectors.npz"),
    ("search", "vectors.npz", "item 3"),
    ("embed", "w.pt", "--data", "photos", "--width", 8, "--out", "v.npz"),
    ("export", "w.pt", "--out", "encoder"),
    ("report", "vectors.npz", "--out", "report.html"),
    ("compare", "photos"),
)


@pytest.mark.parametrize("seed", range(12 * ROUNDS))
@pytest.mark.parametrize("command", COMMANDS, ids=lambda c: f"{c[0]} {c[1]}")
def test_odd_options_of_commands_end_in_words(tmp_path, monkeypatch, place, command, seed):
    monkeypatch.chdir(tmp_path)
    random = random_of(*command, seed)
    names = {p.name for p in place.iterdir()}
    words = [place / w if w in names else w for w in command]
    flags = _flags(command[0], command[1]) or ["--json"]
    flag = flags[(seed * 5 + int(random.integers(len(flags)))) % len(flags)]
    call(*_with(words, flag, _value(seed, random)), keep=(place,))


@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("verb", ["inspect", "eval", "search", "export", "compare", ""])
def test_odd_names_end_in_words(tmp_path, monkeypatch, verb, value):
    """In place of the data, of the run, and of the command."""
    monkeypatch.chdir(tmp_path)
    words = [verb, value] if verb else [value]
    if verb == "inspect" and value == "../../etc/passwd":
        return  # a walk through this computer
    ended = call(*words, *(["x"] if verb == "search" else []))
    assert ended.status == 2 or value in ("--", ".", "[]")
