"""The scikit-learn estimator: scikit-learn's checks, and features equal to the encoder's."""

import pickle

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import parametrize_with_checks

import tellapart as ta
from tellapart.errors import ConfigError, DataError, RunError
from tellapart.runtime.console import Console
from tellapart.training.estimator import Embedder
from tellapart.training.loading import load_encoder
from tellapart.training.run import Run

FAST = {"epochs": 2, "options": {"device": "cpu", "threads": 1, "precision": "float32"}}


@pytest.fixture(scope="module")
def images():
    """40 images of 10 x 12, bytes."""
    return np.random.default_rng(0).integers(0, 256, (40, 10, 12), np.uint8)


@parametrize_with_checks([Embedder(**FAST), Embedder("supcon", **FAST)])
def test_scikit_learn_s_own_checks(estimator, check):
    check(estimator)


def test_features_are_those_of_the_encoder(images):
    made = Embedder(**FAST).fit(images)
    middle = torch.from_numpy(images[:, :, 1:11][:, None])  # of 10 x 12 the middle square
    with torch.inference_mode():
        wanted = made.encoder_.features(middle)
    np.testing.assert_allclose(made.transform(images), wanted, atol=1e-5)
    assert made.get_feature_names_out()[0] == "embedder0"
    assert len(made.losses_) == 2
    assert made.chance_ == pytest.approx(np.log(40))


@pytest.mark.parametrize("shape", [(40, 10, 12), (40, 10, 12, 1), (40, 120)])
def test_the_same_images_in_any_form(images, shape):
    wanted = Embedder(**FAST).fit_transform(images)
    given = Embedder(image_shape=(10, 12) if len(shape) == 2 else None, **FAST).fit(
        images.reshape(shape)
    )
    np.testing.assert_array_equal(given.transform(images.reshape(shape)), wanted)


def test_numbers_are_brought_to_bytes_by_the_range_of_fit(images):
    images = images.copy()
    images[0, 0, :2] = 0, 255
    wanted = Embedder(**FAST).fit_transform(images)
    for low, high in ((0, 1), (-3, 5)):
        other = low + images / 255 * (high - low)
        made = Embedder(**FAST).fit(other)
        assert made.range_ == pytest.approx((low, high))
        np.testing.assert_array_equal(made.transform(other), wanted)
        np.testing.assert_array_equal(
            made.transform(other + 100), made.transform(np.full_like(other, high))
        )


def test_colour_and_the_embedding(images):
    colour = np.stack([images, images, images], -1)
    made = Embedder("simclr", output="embedding", **FAST).fit(colour)
    found = made.transform(colour)
    assert found.shape == (40, 128)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("steps", [2, 30, 200])
@pytest.mark.parametrize("method", ["instdisc", "simclr"])
def test_rows_are_series(method, steps):
    x = np.random.default_rng(0).standard_normal((24, steps)).cumsum(1)
    made = Embedder(method, **FAST).fit(x)
    assert made.transform(x).shape == (24, 64)
    with torch.inference_mode():
        wanted = made.encoder_.features(torch.from_numpy(x[:, None].astype(np.float32)))
    np.testing.assert_allclose(made.transform(x), wanted, atol=1e-5)


def test_a_seed_gives_the_same_encoder_and_another_another(images):
    first, second, third = (Embedder(seed=seed, **FAST).fit_transform(images) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, second)
    assert np.abs(first - third).max() > 1e-3


def test_fit_leaves_threads_and_determinism_as_they_were(images):
    before = torch.are_deterministic_algorithms_enabled(), torch.get_num_threads()
    Embedder(**FAST).fit(images)
    assert before == (torch.are_deterministic_algorithms_enabled(), torch.get_num_threads())


def test_learning_helps_a_classifier():
    """On the digits, 10 labels per class: features beat those of a network that learned nothing."""
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    few = np.concatenate([np.flatnonzero(y == c)[:10] for c in range(10)])
    scores = []
    for epochs in (0.01, 12):
        options = FAST["options"] | {"area": (0.6, 1.0), "flip": 0.0, "batch_size": 128}
        made = Embedder(epochs=epochs, image_shape=(8, 8), options=options).fit(x[:1400])
        near = KNeighborsClassifier(1).fit(made.transform(x[few]), y[few])
        scores.append(near.score(made.transform(x[1400:]), y[1400:]))
    assert scores[1] > scores[0] + 0.05


def test_labels_of_any_kind_for_methods_that_learn_from_them(images):
    names = np.array(["cat", "dog"])[np.arange(40) % 2]
    made = Embedder("supcon", **FAST).fit(images, names)
    assert made.classes_.tolist() == ["cat", "dog"]
    with pytest.raises(ValueError, match="requires y"):
        Embedder("supcon", **FAST).fit(images)
    by_labels = {"options": FAST["options"] | {"objective": {"pairs": "labels"}}, "epochs": 1}
    assert Embedder("margin", **by_labels).fit(images, names).classes_.tolist() == ["cat", "dog"]
    assert not hasattr(Embedder("margin", **FAST).fit(images, names), "classes_")
    np.testing.assert_array_equal(
        Embedder(**FAST).fit_transform(images, names), Embedder(**FAST).fit_transform(images)
    )


def test_in_a_pipeline_cloned_and_pickled(images):
    rows = images.reshape(40, -1)
    line = make_pipeline(clone(Embedder(image_shape=(10, 12), **FAST)), KNeighborsClassifier(1))
    kind = np.arange(40) % 4
    line.fit(rows, kind)
    assert line.score(rows, kind) == 1
    made = line[0]
    np.testing.assert_array_equal(
        pickle.loads(pickle.dumps(made)).transform(rows), made.transform(rows)
    )


def test_out_keeps_a_run(images, tmp_path):
    options = FAST["options"] | {"log_every": 1}
    made = Embedder(epochs=2, options=options, out=tmp_path / "run").fit(images)
    run = Run.open(tmp_path / "run")
    assert run.manifest["status"] == "finished"
    assert run.manifest["data"]["name"] == "arrays"
    kept = load_encoder(run)
    for name, tensor in made.encoder_.state_dict().items():
        assert torch.equal(tensor, kept.state_dict()[name])
    assert (
        ta.export(tmp_path / "run", out=tmp_path / "out", console=Console(quiet=True))["features"]
        == 64
    )
    with pytest.raises(RunError, match="not empty"):
        Embedder(out=tmp_path / "run", **FAST).fit(images)


def test_without_out_no_file_is_written(images, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Embedder(**FAST).fit_transform(images)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("given", "shape", "error", "said"),
    [
        ({"method": "instdsic"}, (9, 8, 8), ConfigError, "did you mean 'instdisc'"),
        ({"output": "vectors"}, (9, 8, 8), ConfigError, "unknown output"),
        ({"options": {"learning": 1}}, (9, 8, 8), ConfigError, "unknown setting"),
        (
            {"options": {"objective": {"temp": 1}}},
            (9, 8, 8),
            ConfigError,
            "unknown setting of the objective",
        ),
        ({"options": {"seed": 1}}, (9, 8, 8), ConfigError, "'seed' is a parameter of the Embedder"),
        ({"image_shape": (5, 5)}, (9, 64), ConfigError, r"image_shape \(5, 5\)"),
        ({"epochs": 0}, (9, 8, 8), ConfigError, "--epochs must be above 0"),
        ({}, (9, 8, 8, 1, 1), DataError, "5 dimensions"),
        ({}, (9, 1), DataError, "2 steps or more"),
        ({}, (1, 8, 8), DataError, "1 sample"),
        ({"method": "simcse"}, (9, 8, 8), ConfigError, "simcse has no settings for images"),
    ],
)
def test_bad_input(given, shape, error, said):
    with pytest.raises(error, match=said):
        Embedder(**({"epochs": 1} | given)).fit(np.zeros(shape))


def test_transform_wants_the_shape_of_fit(images):
    made = Embedder(**FAST).fit(images)
    with pytest.raises(ValueError, match=r"expected as in fit"):
        made.transform(images[:, :, :-1])
