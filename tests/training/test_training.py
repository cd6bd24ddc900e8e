"""The training loop: randomness, schedules, precision, verdicts; a copy leaves it alone."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch

from tellapart.errors import ConfigError, DataError
from tellapart.objectives import (
    ExemplarOptions,
    InstDiscOptions,
    MarginOptions,
    MoCoOptions,
    NCEOptions,
    SimCLROptions,
    SpreadOptions,
    SupConOptions,
    TripletOptions,
)
from tellapart.training import diagnosis, hardware, session
from tellapart.training.build import image_statistics as statistics
from tellapart.training.config import TrainConfig, differences, setting_names
from tellapart.training.optimizer import learning_rate, optimizer
from tellapart.training.presets import PRESETS, name_for, named
from tellapart.training.resolve import resolve
from tellapart.training.trainer import NotANumber, Trainer

SMALL = TrainConfig(epochs=2, batch_size=64, threads=1, dim=16, head="linear-bn")


@pytest.fixture(scope="module")
def source(digits):
    return digits.split("train").subset(range(0, 300))


def _weights(trainer):
    state = trainer.state()
    return [v.clone() for part in ("encoder", "objective") for v in state[part].values()]


def _run(trainer, steps=None):
    for step in trainer:
        if step.number == steps:
            break
    return trainer


METHODS = {
    "simclr": ("simclr", SimCLROptions()),
    "spread": ("spread", SpreadOptions()),
    "moco": ("moco", MoCoOptions(queue=100, symmetric=True)),
    "supcon": ("supcon", SupConOptions()),
    "margin": ("margin", MarginOptions(pairs="neighbours")),
    "triplet": ("triplet", TripletOptions()),
    "words": ("nce", NCEOptions(negatives=64)),
    "softmax": ("instdisc", InstDiscOptions()),
    "nce": ("instdisc", InstDiscOptions(loss="nce", negatives=64)),
    "nce, per instance": ("instdisc", InstDiscOptions(loss="nce", negatives=64, noise="instance")),
    "parametric": ("exemplar", ExemplarOptions()),
}


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("kind", ["sgd", "adamw", "lars"])
def test_eight_steps_equal_four_and_a_continuation_bit_for_bit(source, name, kind):
    method, options = METHODS[name]
    config = dataclasses.replace(SMALL, objective=options, optimizer=kind, blur=0.5, rotation=5)
    whole = _run(Trainer(method, config, source))
    assert whole.number == 8
    half = _run(Trainer(method, config, source), 4)
    state = half.state()
    torch.manual_seed(99)  # whatever happens in between must not matter
    rest = Trainer(method, config, source)
    rest.load_state(state)
    _run(rest)
    assert all(torch.equal(a, b) for a, b in zip(_weights(whole), _weights(rest), strict=True))


def test_the_probe_leaves_the_trainer_alone(source):
    trainer = _run(Trainer("instdisc", SMALL, source), 2)
    before = _weights(trainer)
    assert trainer.seconds_per_step(0.5) > 0
    assert trainer.number == 2
    assert all(torch.equal(a, b) for a, b in zip(before, _weights(trainer), strict=True))


@pytest.mark.parametrize(("minutes", "steps"), [(1.0, 540), (0.25, 135), (1e-6, 1)])
def test_minutes_become_steps_of_the_measured_speed(source, monkeypatch, minutes, steps):
    monkeypatch.setattr(Trainer, "seconds_per_step", lambda self: 0.1)
    assert Trainer("instdisc", SMALL, source).steps_in(minutes) == steps


def test_every_trained_parameter_moves(source):
    trainer = Trainer(
        "exemplar",
        dataclasses.replace(SMALL, objective=ExemplarOptions(), weight_decay=0.0),
        source,
    )
    before = [p.detach().clone() for p in trainer._parameters()]
    _run(trainer, 2)
    assert all(not torch.equal(a, b) for a, b in zip(before, trainer._parameters(), strict=True))
    assert (
        len(before) == len(list(trainer.encoder.parameters())) - 1 + 1
    )  # the last shift is fixed; the weights of S


def test_training_learns_on_real_digits(source):
    trainer = Trainer("instdisc", dataclasses.replace(SMALL, epochs=12, flip=0.0, hue=0.0), source)
    rows = [trainer.measure(step) for step in trainer]
    assert diagnosis.judge(rows).kind == "learning"
    assert rows[-1]["gap"] > rows[0]["gap"] + 0.1
    assert {"loss", "chance", "lr", "alignment", "uniformity", "effective_rank", "std"} <= rows[
        -1
    ].keys()


def test_the_batch_is_at_most_the_source(source):
    trainer = Trainer("instdisc", dataclasses.replace(SMALL, batch_size=4096), source)
    assert trainer.batch == 300
    assert trainer.per_epoch == 1


def test_one_image_is_an_error(source):
    with pytest.raises(DataError, match="needs 2 or more"):
        Trainer("instdisc", SMALL, source.subset([0]))


def test_a_loss_that_is_not_a_number_stops_before_anything_is_written(source):
    trainer = _run(Trainer("instdisc", SMALL, source), 2)
    with torch.no_grad():
        trainer.encoder.head[0].weight.fill_(float("nan"))
    bank = trainer.objective.bank.rows.clone()
    with pytest.raises(NotANumber, match="the loss of step 3 is not a number") as error:
        trainer.advance()
    assert len(error.value.ids) == 64
    assert torch.equal(bank, trainer.objective.bank.rows)


def test_global_settings_are_restored(source):
    torch.set_num_threads(1)
    trainer = Trainer("instdisc", dataclasses.replace(SMALL, threads=2), source)
    for _ in trainer:
        assert torch.get_num_threads() == 2
        assert torch.are_deterministic_algorithms_enabled()
        break
    del _
    import gc

    gc.collect()
    assert torch.get_num_threads() == 1
    assert not torch.are_deterministic_algorithms_enabled()


def test_bfloat16_trains_to_finite_weights(source):
    trainer = _run(Trainer("instdisc", dataclasses.replace(SMALL, precision="bfloat16"), source))
    assert trainer.machine.precision == "bfloat16"
    assert all(bool(w.isfinite().all()) for w in _weights(trainer))


def test_statistics_are_those_of_the_pixels(source):
    mean, std = statistics(source)
    pixels = source.read(torch.arange(300)).float() / 255
    assert float(mean) == pytest.approx(float(pixels.mean()), abs=1e-5)
    assert float(std) == pytest.approx(float(pixels.std()), abs=1e-4)


def test_threads_go_by_what_is_free_or_by_the_run_that_is_continued(monkeypatch):
    monkeypatch.setattr(hardware, "free", lambda most: 3)
    assert hardware.decide(TrainConfig(device="cpu")).threads == 3
    assert hardware.decide(TrainConfig(device="cpu"), threads=2).threads == 2
    assert hardware.decide(TrainConfig(device="cpu", threads=5), threads=2).threads == 5


def test_a_run_that_drops_to_one_thread_says_so_and_is_continued_with_one(
    monkeypatch, tmp_path, capsys
):
    import json

    import tellapart as ta
    from tellapart.runtime.console import Console

    class Soon:
        def __init__(self, threads):
            self.threads, self.steps = threads, 0

        def after(self, seconds):
            self.steps += 1
            return self.threads if self.steps < 3 else 1

    monkeypatch.setattr(hardware, "free", lambda most: 2)
    monkeypatch.setattr(session, "ThreadChoice", Soon)
    options = {"data": "digits", "out": tmp_path / "r", "batch_size": 256, "save_every": 2}
    quiet = Console(quiet=True)
    real, used = Trainer.advance, []

    def stopped_at_six(self):
        used.append(torch.get_num_threads())
        if self.number == 5 and len(used) == 6:
            raise KeyboardInterrupt
        return real(self)

    monkeypatch.setattr(Trainer, "seconds_per_step", lambda self: 0.1)
    monkeypatch.setattr(Trainer, "advance", stopped_at_six)
    with pytest.raises(KeyboardInterrupt):
        ta.train("simclr", steps=8, console=quiet, **options)
    assert used == [2, 2, 2, 1, 1, 1]
    ta.train("simclr", steps=8, resume=True, console=quiet, **options)
    assert set(used[6:]) == {1}
    manifest = json.loads((tmp_path / "r/run.json").read_text())
    assert manifest["threads"] == [{"step": 1, "threads": 2}, {"step": 4, "threads": 1}]


# configuration


def test_schedules():
    cosine = TrainConfig(lr=2.0, warmup=1.0)
    rates = [learning_rate(cosine, s, 100, 10) for s in range(100)]
    assert rates[:10] == pytest.approx([0.2 * (s + 1) for s in range(10)])
    assert rates[10] == pytest.approx(2.0)
    assert rates[55] == pytest.approx(2.0 * 0.5 * (1 + math.cos(math.pi * 0.5)))
    theirs = named("spread_cifar10")
    rates = [
        learning_rate(theirs, epoch, 301, 1) / theirs.lr for epoch in (0, 119, 120, 160, 200, 300)
    ]
    assert rates == pytest.approx([1, 1, 0.1, 0.05, 0.01, 0.01])
    stepped = TrainConfig(lr=1.0, schedule="step", lr_steps=(0.6, 0.8))
    assert [
        learning_rate(stepped, s, 200, 1) for s in (0, 119, 120, 159, 160, 199)
    ] == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])
    assert learning_rate(TrainConfig(lr=1.0, schedule="constant"), 99, 100, 1) == 1.0


def test_optimisers_take_their_settings():
    weight, bias = torch.nn.Parameter(torch.ones(2, 2)), torch.nn.Parameter(torch.ones(2))
    sgd = optimizer(TrainConfig(nesterov=True, momentum=0.8), [weight, bias])
    assert sgd.defaults["nesterov"]
    assert sgd.defaults["momentum"] == 0.8
    lars = optimizer(TrainConfig(optimizer="lars", weight_decay=0.1), [weight, bias])
    assert [g["weight_decay"] for g in lars.param_groups] == [0.1, 0.0]
    assert optimizer(TrainConfig(optimizer="adamw"), [weight]).defaults["betas"] == (0.9, 0.999)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("width", 4),  # where a convolution of oneDNN would write past its memory
        ("epochs", 0), ("lr", -1), ("lr", float("nan")), ("batch_size", 0), ("momentum", 1.0),
        ("steps", 0), ("lr_steps", (0.5, 1.5)), ("lr_factors", (0.5,)), ("flip", 2.0),
        ("weight_decay", -1), ("threads", 0), ("seed", -1), ("steps", 2**40),
    ],
)  # fmt: skip
def test_settings_outside_their_range_are_named(field, value):
    with pytest.raises(ConfigError, match=f"--{field.replace('_', '-')}"):
        TrainConfig(**{field: value})


@pytest.mark.parametrize("name", PRESETS)
def test_settings_of_views_are_nested_and_flat_by_name(name):
    config = named(name)
    flat = config.to_dict()
    assert "views" not in flat
    for field in setting_names(type(config.views)):
        assert getattr(config, field) == getattr(config.views, field) == flat[field]
    field = {"ImageViews": "blur", "SequenceViews": "time_mask", "TextViews": "crop"}
    field = field[type(config.views).__name__]
    changed = dataclasses.replace(config, **{field: 0.25})
    nested = dataclasses.replace(config.views, **{field: 0.25})
    assert changed.views == nested
    assert changed == dataclasses.replace(config, views=nested) != config


@pytest.mark.parametrize(
    ("method", "options", "wanted"),
    [
        ("simclr", {"temperature": 0.3}, ("temperature", 0.3)),
        ("moco", {"queue": 7, "momentum": 0.5}, ("queue", 7)),  # momentum is the optimiser's here
        ("moco", {"objective": {"queue": 7}, "temperature": 0.4}, ("temperature", 0.4)),
        ("triplet", {"margin": 0.5}, ("margin", 0.5)),
        ("instdisc", {"objective": InstDiscOptions(loss="nce"), "negatives": 9}, ("negatives", 9)),
    ],
)
def test_options_of_the_method_need_no_prefix_where_the_name_is_unique(method, options, wanted):
    config = resolve(method, "digits", None, None, options)
    assert getattr(config.objective, wanted[0]) == wanted[1]
    if method == "moco" and "momentum" in options:
        assert (config.momentum, config.objective.momentum) == (0.5, 0.99)
    if method == "instdisc":
        assert config.objective.loss == "nce"


@pytest.mark.parametrize("name", ["temperture", "jiter", "epoch"])
def test_an_unknown_setting_is_named_with_the_nearest(name):
    with pytest.raises(ConfigError, match="did you mean"):
        resolve("simclr", "digits", None, None, {name: 1})


def test_a_configuration_survives_json():
    import json

    config = named("instdisc_cifar10")
    assert TrainConfig.from_dict("instdisc", json.loads(json.dumps(config.to_dict()))) == config


def test_differences_name_the_flags():
    old, new = (
        TrainConfig(),
        TrainConfig(lr=0.1, cache="elsewhere", objective=InstDiscOptions(temperature=0.2)),
    )
    assert differences(old.to_dict(), new.to_dict()) == [
        "--lr 0.03 (now 0.1)",
        "--objective.temperature 0.07 (now 0.2)",
    ]


def test_presets_are_configurations_of_their_method():
    for name in PRESETS:
        config = named(name)
        assert type(config.objective).__name__.lower().startswith(name.partition("_")[0])
    assert name_for("instdisc", "cifar10:/data") == "instdisc_cifar10"
    with pytest.raises(ConfigError, match="did you mean 'instdisc_digits'"):
        named("instdisc_digit")


def test_the_authors_cifar_preset_holds_their_numbers():
    c = named("instdisc_cifar10")
    assert (c.batch_size, c.lr, c.weight_decay, c.epochs, c.flip) == (128, 0.03, 5e-4, 200, 0.0)
    assert (c.objective.temperature, c.objective.loss, c.objective.bank_momentum) == (
        0.1,
        "softmax",
        0.5,
    )


def test_a_device_that_is_not_there_is_an_error():
    with pytest.raises(ConfigError, match="--device cuda:7 cannot be used"):
        hardware.decide(TrainConfig(device="cuda:7"))
    with pytest.raises(ConfigError, match="--device warp cannot be used"):
        hardware.decide(TrainConfig(device="warp"))


# verdicts


def _rows(losses, std=0.9, rank=40.0, chance=7.0):
    return [
        {"step": 20 * i, "loss": x, "std": std, "effective_rank": rank, "chance": chance}
        for i, x in enumerate(losses)
    ]


def test_verdicts():
    assert diagnosis.judge(_rows([9, 8, 7.5, 7, 6.5, 6])).kind == "learning"
    assert diagnosis.judge(_rows([7.0] * 10)).kind == "at chance"
    assert "Raise --lr" in diagnosis.judge(_rows([7.0] * 10)).sentence
    assert diagnosis.judge(_rows([9.0] * 10)).kind == "flat"
    assert diagnosis.judge(_rows([7.0] * 3)).kind == "too early"


def test_a_random_bank_above_chance_that_falls_is_healthy():
    assert (
        diagnosis.judge(_rows([11.96, 12.3, 12.1, 11.5, 11.0, 10.5, 10.2], chance=11.0)).kind
        == "learning"
    )


def test_collapse_is_dated():
    rows = _rows([9, 8.5, 8]) + [
        r | {"step": 100 + 20 * i} for i, r in enumerate(_rows([7.0] * 5, std=0.01, rank=1.1))
    ]
    found = diagnosis.judge(rows)
    assert found.kind == "collapsed"
    assert "collapsed since step 100" in found.sentence


@pytest.mark.parametrize("name", [n for n in PRESETS if n.endswith("cifar10")])
def test_the_cifar_recipes_take_twenty_steps_on_synthetic_images(name):
    """The authors' settings but for the batch and the network, which want a GPU."""
    from tellapart.data.images import ImageSource, Pixels

    images = np.random.default_rng(0).integers(0, 256, (64, 32, 32, 3), dtype=np.uint8)
    source = ImageSource(
        name="cifar10", pixels=Pixels.of(images), image_size=32,
        all_ids=[str(i) for i in range(64)],
        all_labels=np.arange(64) % 10, classes=[], parts={}, fingerprint="synthetic",
    )  # fmt: skip
    small = {
        "encoder": "small-resnet",
        "width": 8,
        "batch_size": 32,
        "bn_rows": 8,
        "threads": 1,
        "steps": 20,
    }
    config = dataclasses.replace(named(name), **small)
    if hasattr(config.objective, "queue"):
        config = dataclasses.replace(
            config, objective=dataclasses.replace(config.objective, queue=48)
        )
    steps = list(Trainer(name.partition("_")[0], config, source))
    assert len(steps) == 20
    assert all(math.isfinite(s.loss) for s in steps)


def test_two_rows_are_no_collapse(source):
    trainer = Trainer(
        "simclr", dataclasses.replace(SMALL, batch_size=2, objective=SimCLROptions()), source
    )
    assert "effective_rank" not in trainer.measure(trainer.advance())


def test_a_batch_of_one_group_says_that_nothing_is_split(source):
    config = dataclasses.replace(SMALL, batch_size=48, bn="split", objective=MoCoOptions(queue=100))
    assert "48 are one group: nothing is split; give --bn-rows 24" in session.plan(
        Trainer("moco", config, source), 0.1
    )
    config = dataclasses.replace(config, bn_rows=24)
    assert "nothing is split" not in session.plan(Trainer("moco", config, source), 0.1)


def test_pieces_of_one_are_whole_groups_where_batchnorm_is_split(source):
    config = dataclasses.replace(SMALL, micro_batch=1, bn="local", objective=SimCLROptions())
    with pytest.raises(ConfigError, match="raise --micro-batch"):
        Trainer("simclr", config, source)
    Trainer("simclr", dataclasses.replace(config, bn="split", bn_rows=8), source).advance()
