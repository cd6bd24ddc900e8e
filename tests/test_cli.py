"""The command line as a user meets it: every verb, every error a sentence, no traceback."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tellapart import Run, cli
from tellapart.embeddings import Embeddings


def _run(capsys, *arguments):
    """(exit status, standard output, standard error) of a command."""
    try:
        cli.main([str(a) for a in arguments])
        status = 0
    except SystemExit as stop:
        status = stop.code
    out, err = capsys.readouterr()
    assert "Traceback" not in out + err
    return status, out, err


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "digits"
    cli.main(
        [
            "train",
            "instdisc",
            "--data",
            "digits",
            "--out",
            str(folder),
            "--epochs",
            "4",
            "--threads",
            "1",
        ]
    )
    return folder


def test_train_says_the_plan_the_chance_and_a_verdict(capsys, tmp_path):
    status, _, said = _run(
        capsys, "train", "instdisc", "--data", "digits", "--out", tmp_path / "r", "--epochs",
        "1", "--threads", "1",
        "--objective.temperature", "0.2", "--batch-size", "500",
    )  # fmt: skip
    assert status == 0
    assert "1,437 images, 1 channel" in said
    assert "(chance 7.27)" in said
    assert "images/s" in said
    assert (
        json.loads((tmp_path / "r/run.json").read_text())["config"]["objective"]["temperature"]
        == 0.2
    )


def test_eval_prints_a_table_and_a_verdict(capsys, run):
    status, _, said = _run(capsys, "eval", run)
    assert status == 0
    for word in ("centred pixels", "random init", "trained embedding", "10 per", "95 % interval"):
        assert word in said
    result = json.loads((run / "eval.json").read_text())
    assert result["protocol"] == "eval-v2"
    assert result["scores"]["centred pixels"]["knn@1"]["value"] == pytest.approx(0.953, abs=0.003)
    assert result["scores"]["centred pixels"]["knn@20"]["value"] == pytest.approx(0.950, abs=0.004)


def test_search_by_file_and_by_id(capsys, run, tmp_path, digits):
    Image.fromarray(digits.image(1500)[:, :, 0]).save(tmp_path / "q.png")
    status, out, _ = _run(
        capsys,
        "search",
        run,
        tmp_path / "q.png",
        "test/00063",
        "--k",
        3,
        "--json",
        "--sheet",
        tmp_path / "s.png",
    )
    assert status == 0
    by_file, by_id = json.loads(out)
    assert by_file["found"][0]["id"] == "test/00063"  # the file is that item
    assert by_file["found"][0]["similarity"] == pytest.approx(1, abs=1e-4)
    assert [f["id"] for f in by_id["found"]][:2] == [f["id"] for f in by_file["found"]][1:]
    assert Image.open(tmp_path / "s.png").size[0] > 64 * 4
    assert (run / "embeddings/vectors.npy").exists()


def test_embed_another_folder(capsys, run, tmp_path):
    for i in range(3):
        Image.fromarray(np.full((20 + i, 20), 40 * i, np.uint8)).save(tmp_path / f"{i}.png")
    status, out, _ = _run(
        capsys, "embed", run, "--data", tmp_path, "--out", tmp_path / "v.npz", "--json"
    )
    assert status == 0
    assert json.loads(out) == {"out": str(tmp_path / "v.npz"), "items": 3, "width": 64}
    assert Embeddings.load(tmp_path / "v.npz").ids == ["0.png", "1.png", "2.png"]


def test_a_folder_of_photographs_from_train_to_eval(capsys, photos, tmp_path):
    out = tmp_path / "run"
    assert (
        _run(
            capsys,
            "train",
            "instdisc",
            "--data",
            photos,
            "--out",
            out,
            "--epochs",
            3,
            "--threads",
            1,
        )[0]
        == 0
    )
    status, _, said = _run(capsys, "eval", out)
    assert status == 0
    assert "k-NN accuracy" in said
    manifest = json.loads((out / "run.json").read_text())
    assert manifest["data"]["items"] == 24
    assert _run(capsys, "search", out, photos / "red" / "1.png", "--k", 2)[0] == 0


def test_images_without_labels_get_geometry_and_an_honest_sentence(capsys, photos, tmp_path):
    flat = tmp_path / "flat"
    flat.mkdir()
    for i, file in enumerate(sorted(photos.rglob("*.png"))):
        file.rename(flat / f"{i}.png")
    out = tmp_path / "run"
    assert (
        _run(
            capsys, "train", "instdisc", "--data", flat, "--out", out, "--epochs", 2, "--threads", 1
        )[0]
        == 0
    )
    status, _, said = _run(capsys, "eval", out)
    assert status == 0
    assert "nothing can tell which row is better" in said


TRAIN = ["train", "simclr", "--data", "digits", "--out", "x"]
ERRORS = [
    (["trian"], "did you mean 'train'"),
    (["--verison"], "did you mean --version"),
    (["--completion", "kornshell"], "unknown shell 'kornshell'"),
    (["eval"], "SUBJECT"),
    (["embed", "timm/resnet18"], "--out must be given; for example: tellapart embed"),
    (["detect", "x", "--preset", "scene"], "did you mean 'scenes'"),
    ([*TRAIN, "--temperature", "0"], "above 0, got 0"),
    ([*TRAIN, "--temprature", "0.1"], "did you mean --temperature"),
    ([*TRAIN, "--jiter", "0.1"], "did you mean --jitter"),
    ([*TRAIN, "--jitter", "1.5"], "--jitter is a probability"),
    ([*TRAIN, "--seed", "-1"], "--seed must lie in"),
    ([*TRAIN, "--seed", "1e20"], "--seed: invalid int value"),
    ([*TRAIN, "--seed", "1" + 20 * "0"], "--seed must lie in"),
    ([*TRAIN, "--batch-size", "1" + 20 * "0"], "--batch-size must lie in"),
    (["train", "simclr", "--data", "digits", "--out", ""], "--out must name a folder"),
    (["train", "cpc", "--data", "digits", "--out", "x", "--temperature", "0.1"], "unknown option"),
    (["train"], "--data and --out must be given; for example: tellapart train"),
    (["train", "simcrl", "--data", "digits"], "did you mean 'simclr'"),
    (["train", "instdsic"], "did you mean 'instdisc'"),
    (
        ["train", "instdisc", "--data", "digits", "--out", "x", "--objective.temperature", "0"],
        "above 0, got 0",
    ),
    (
        ["train", "instdisc", "--data", "digits", "--out", "x", "--objective.temperature", "inf"],
        "above 0, got inf",
    ),
    (
        [
            "train",
            "instdisc",
            "--data",
            "digits",
            "--out",
            "x",
            "--optimizer",
            "adamw",
            "--nesterov",
        ],
        "requires --optimizer sgd",
    ),
    (
        [
            "train",
            "simclr",
            "--data",
            "digits",
            "--out",
            "x",
            "--micro-batch",
            "1",
            "--bn",
            "local",
        ],
        "raise --micro-batch",
    ),
    (
        ["train", "simclr", "--data", "digits", "--out", "x", "--encoder", "timm/convnext_atto"],
        "larger --image-size",
    ),
    (
        ["train", "instdisc", "--data", "digits", "--out", "x", "--epochs", "-1"],
        "--epochs must be above 0",
    ),
    (["train", "instdisc", "--data", "digit", "--out", "x"], "did you mean 'digits'"),
    (["train", "instdisc", "--data", "digits", "--out", "x", "--preset", "nope"], "unknown preset"),
    (
        ["train", "instdisc", "--data", "digits", "--out", "x", "--encoder", "small-resnot"],
        "small-resnet",
    ),
    (
        ["train", "instdisc", "--data", "digits", "--out", "x", "--image-size", "4"],
        "--image-size must lie in 8..1024",
    ),
    (["eval", "nowhere"], "is not a run"),
    (["search", "nowhere", "q.png"], "is not a run"),
    (["embed", "nowhere", "--out", "x.npz"], "is not a run"),
]


@pytest.mark.parametrize(("arguments", "sentence"), ERRORS)
def test_errors_are_sentences(capsys, tmp_path, monkeypatch, arguments, sentence):
    monkeypatch.chdir(tmp_path)
    status, _, said = _run(capsys, *arguments)
    assert status == 2
    assert sentence in " ".join(
        said.translate({ord(c): " " for c in "│╭╮╰╯─"}).split()
    )  # out of its box
    assert not (tmp_path / "x").exists()


def test_an_unknown_option_comes_with_the_nearest(capsys, tmp_path):
    status, out, said = _run(
        capsys, "train", "instdisc", "--data", "digits", "--out", tmp_path / "x", "--epohs", "3"
    )
    assert status == 2
    assert "--epochs" in out + said


def test_errors_as_json(capsys):
    status, out, _ = _run(capsys, "eval", "nowhere", "--json")
    assert status == 2
    assert "is not a run" in json.loads(out)["error"]


def test_queries_that_cannot_be_read_are_sentences(capsys, run, tmp_path):
    (tmp_path / "bad.png").write_bytes(b"nothing")
    assert "cannot be read as an image" in _run(capsys, "search", run, tmp_path / "bad.png")[2]
    assert "neither a file nor the id" in _run(capsys, "search", run, "gone.png")[2]
    assert "--k must be 1 or more" in _run(capsys, "search", run, "test/00001", "--k", 0)[2]
    assert (
        "cannot write the picture"
        in _run(capsys, "search", run, "test/00001", "--sheet", tmp_path / "x.nope")[2]
    )


@pytest.mark.parametrize("verb", sorted(cli.COMMANDS))
@pytest.mark.parametrize(("columns", "lines"), [(80, 24), (100, 24), (40, 100)])
def test_the_help_of_a_command_fits_a_screen(capsys, monkeypatch, verb, columns, lines):
    monkeypatch.setenv("COLUMNS", str(columns))
    status, out, _ = _run(capsys, verb, "--help")
    assert status == 0
    assert "Example: tellapart" in out
    assert "--json" in out
    assert len(out.splitlines()) <= lines
    if columns >= 80:
        assert max(map(len, out.splitlines())) <= columns
    assert out.count("\n  --") <= 5  # the others stand under --help-all


@pytest.mark.parametrize(
    "words", [*([v] for v in sorted(cli.COMMANDS)), ["train", "cpc"], ["train", "simcse"]]
)
def test_the_full_help_describes_every_option(capsys, words):
    status, out, _ = _run(capsys, *words, "--help-all")
    assert status == 0
    _, _, options, _ = cli._described(words[0], [*words[1:], "--help"])
    assert [o.name for o in options if not o.help] == []
    flags = re.findall(r"--[\w.-]+", out)
    for option in options:
        off = option.flag.replace(".", ".no-") if "." in option.flag else f"--no-{option.flag[2:]}"
        assert option.positional or {option.flag, off} & set(flags)


HEAVY = {"torch", "torchvision", "timm", "numpy", "scipy", "sklearn", "PIL", "rich"}
LIGHT = [
    ["--version"],
    ["--help"],
    [],
    ["trian"],
    ["--verison"],
    ["train"],
    ["train", "instdsic"],
    ["train", "instdisc", "--data", "digits", "--out", "x", "--epohs", "3"],
    ["train", "instdisc", "--data", "digits", "--out", "x", "--epochs", "three"],
    ["eval", "runs/x", "--ful"],
    ["detect", "runs/x", "--sizs", "3"],
    *([verb, "--help"] for verb in sorted(cli.COMMANDS)),
    ["train", "cpc", "--help-all"],
    ["--completion", "bash"],
]


@pytest.mark.parametrize("words", LIGHT, ids=" ".join)
def test_a_line_of_text_loads_nothing_heavy(words):
    code = (
        "import sys\nfrom tellapart import cli\n"
        "try: cli.main(sys.argv[1:])\nexcept SystemExit: pass\n"
        f"print('loaded', sorted({HEAVY} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "loaded []", done.stdout + done.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_a_completion_script_names_commands_and_options(capsys, shell):
    status, out, _ = _run(capsys, "--completion", shell)
    assert status == 0
    for word in (
        "inspect",
        "--objective.temperature",
        "--temperature",
        "--jitter",
        "supcon",
        "--objective.queue",
    ):
        assert word in out


@pytest.mark.parametrize("flag", ["--temperature", "--objective.temperature"])
def test_the_temperature_and_the_views_are_flags_of_a_training(capsys, tmp_path, flag):
    status, _, said = _run(
        capsys, "train", "simclr", "--data", "digits", "--out", tmp_path / "r", "--steps", "1",
        "--threads", "1",
        flag, "0.25", "--jitter", "0.3", "--area", "0.4", "0.9", "--no-nesterov", "--batch_size",
        "100",
    )  # fmt: skip
    assert status == 0, said
    config = json.loads((tmp_path / "r/run.json").read_text())["config"]
    assert config["objective"]["temperature"] == 0.25
    assert (config["jitter"], config["area"], config["batch_size"]) == (0.3, [0.4, 0.9], 100)
    assert "views" not in config  # flat, as in runs written before
    assert f"next: tellapart eval {tmp_path / 'r'}" in said


def test_help_and_version_without_a_verb(capsys):
    assert "tellapart demo" in _run(capsys)[1]
    assert _run(capsys, "--version")[1].strip().count(".") == 2


def test_python_dash_m_is_the_command():
    done = subprocess.run(
        [sys.executable, "-m", "tellapart", "--help"], capture_output=True, text=True, check=True
    )
    assert "tellapart train --data" in done.stdout


def test_compare_prints_runs_side_by_side(capsys, run):
    _run(capsys, "eval", run)
    status, _, said = _run(capsys, "compare", run, run)
    assert status == 0
    for word in (
        "instdisc",
        "images/s",
        "peak memory",
        "loss / chance",
        "k-NN at the deciding k",
        "linear",
        " to ",
    ):
        assert word in said
    _, out, _ = _run(capsys, "compare", run, "--json")
    (row,) = json.loads(out)
    assert row["epochs"] == 4
    assert row["peak_memory"] > 1e8
    assert 0.5 < row["loss"] < 1.2
    assert row["knn"]["low"] <= row["knn"]["accuracy"] <= row["knn"]["high"]


def test_compare_leaves_out_the_scores_of_an_earlier_step(capsys, run):
    _run(capsys, "eval", run)
    file = Path(run) / "eval.json"
    judged = json.loads(file.read_text())
    assert judged["step"] == json.loads((Path(run) / "run.json").read_text())["step"]
    Run.open(run).save_evaluation(judged | {"step": judged["step"] - 1})
    (row,) = json.loads(_run(capsys, "compare", run, "--json")[1])
    assert row["knn"] is None
    Run.open(run).save_evaluation(judged)


def test_compare_of_what_is_no_run_is_an_error(capsys, tmp_path):
    status, _, said = _run(capsys, "compare", tmp_path)
    assert status == 2
    assert "is not a run" in said


def test_training_starts_from_the_weights_of_a_run(capsys, run, tmp_path):
    status, _, said = _run(
        capsys, "train", "simclr", "--data", "digits", "--out", tmp_path / "r", "--epochs", "1",
        "--threads", "1",
        "--init", run,
    )  # fmt: skip
    assert status == 0
    assert f"starting from {run}: its network, stem and normalisation" in said
    assert "usually want a tenth" not in said  # --init takes the settings made for adapting
    _run(capsys, "eval", tmp_path / "r")
    assert {"random init", "starting weights"} <= json.loads(
        (tmp_path / "r/eval.json").read_text()
    )["scores"].keys()
    status, _, said = _run(
        capsys, "train", "simclr", "--data", "digits", "--out", tmp_path / "s", "--init", "nowhere"
    )
    assert status == 2
    assert "--init nowhere is neither" in said


@pytest.mark.parametrize("method", ["supcon", "triplet"])
def test_methods_that_need_labels_say_so_for_a_folder_without(capsys, tmp_path, photos, method):
    flat = tmp_path / "flat"
    flat.mkdir()
    for i, file in enumerate(sorted(photos.rglob("*.png"))):
        file.rename(flat / f"{i}.png")
    status, _, said = _run(capsys, "train", method, "--data", flat, "--out", tmp_path / "r")
    assert status == 2
    assert f"{method} learns from labels" in said
    assert not (tmp_path / "r").exists()


def test_moco_is_warned_where_batchnorm_gives_pairs_away(capsys, tmp_path):
    for more, told in ((("--bn", "local"), True), (("--bn", "split", "--bn-rows", "16"), False)):
        _, _, said = _run(
            capsys, "train", "moco", "--data", "digits", "--out", tmp_path / more[1], "--steps",
            "1", "--threads", "1",
            "--objective.queue", "256", *more,
        )  # fmt: skip
        assert ("give pairs away" in said) == told


def test_a_big_batch_goes_in_pieces_and_says_what_batchnorm_sees(capsys, tmp_path):
    status, _, said = _run(
        capsys, "train", "simclr", "--data", "digits", "--out", tmp_path / "r", "--steps", "2",
        "--threads", "1",
        "--batch-size", "1024", "--micro-batch", "128",
    )  # fmt: skip
    assert status == 0
    assert "steps of 1024" in said
    assert "BatchNorm normalises groups of 32 images" in said


def test_a_model_card_says_whether_labels_were_used(capsys, tmp_path, run):
    _run(
        capsys,
        "train",
        "supcon",
        "--data",
        "digits",
        "--out",
        tmp_path / "r",
        "--steps",
        "1",
        "--threads",
        "1",
    )
    assert "trained with labels" in (tmp_path / "r/encoder/README.md").read_text()
    assert "no labels used" in (run / "encoder/README.md").read_text()


def test_a_queue_longer_than_the_data_is_a_plain_warning(tmp_path):
    command = [
        sys.executable,
        "-m",
        "tellapart",
        "train",
        "moco",
        "--data",
        "digits",
        "--out",
        str(tmp_path / "r"),
    ]
    done = subprocess.run(
        [*command, "--steps", "1", "--threads", "1"], capture_output=True, text=True, check=True
    )
    assert "warning: --objective.queue 4096 is larger than the 1437 images" in done.stderr
    assert "UserWarning" not in done.stderr


def test_another_network_than_the_starting_weights_have_is_an_error(capsys, run, tmp_path):
    status, _, said = _run(
        capsys,
        "train",
        "simclr",
        "--data",
        "digits",
        "--out",
        tmp_path / "r",
        "--init",
        run,
        "--width",
        "32",
    )
    assert status == 2
    assert "has its own network (width 16); leave out --width 32" in said


def test_a_vocabulary_of_classes_names_an_item_without_a_label(capsys, tmp_path, photos):
    (photos / "red" / "0.png").rename(photos / "loose.png")
    status, _, said = _run(
        capsys,
        "train",
        "nce",
        "--data",
        photos,
        "--out",
        tmp_path / "r",
        "--objective.vocabulary",
        "classes",
    )
    assert status == 2
    assert "items without a label" in said
    assert "loose.png" in said
