"""data: what is read, what is skipped and why, splits, cache, and scenes-v1."""

from __future__ import annotations

import hashlib
import os
import struct
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from tellapart.data import Cache, open_source
from tellapart.data import scenes as scenes_module
from tellapart.data.sampler import batch_at, epoch_order, steps_per_epoch
from tellapart.errors import ConfigError, DataError

# built-in sets ------------------------------------------------------------------------------------


def test_digits_are_scikit_learns_in_their_order(digits):
    from sklearn.datasets import load_digits

    assert len(digits) == 1797
    assert {name: len(rows) for name, rows in digits.splits.items()} == {"train": 1437, "test": 360}
    assert digits.splits["test"].tolist() == list(range(1437, 1797))
    assert digits.labels.tolist() == load_digits().target.tolist()
    assert digits.read(torch.tensor([3])).shape == (1, 1, 16, 16)


@pytest.mark.fashion_mnist
def test_fashion_mnist_from_debian(fashion):
    assert {name: len(rows) for name, rows in fashion.splits.items()} == {
        "train": 60_000,
        "test": 10_000,
    }
    assert np.bincount(fashion.labels[:60_000]).tolist() == [6000] * 10


def _write_idx(path, array):
    head = bytes([0, 0, 8, array.ndim]) + b"".join(struct.pack(">i", n) for n in array.shape)
    path.write_bytes(head + array.tobytes())


def test_idx_files_from_a_given_folder(tmp_path):
    random = np.random.default_rng(0)
    for stem, n in (("train", 6), ("t10k", 4)):
        _write_idx(
            tmp_path / f"{stem}-images-idx3-ubyte",
            random.integers(0, 256, (n, 28, 28), dtype=np.uint8),
        )
        _write_idx(
            tmp_path / f"{stem}-labels-idx1-ubyte", random.integers(0, 10, n, dtype=np.uint8)
        )
    assert len(open_source(f"fashion-mnist:{tmp_path}")) == 10
    (tmp_path / "t10k-labels-idx1-ubyte").write_bytes(b"\0\0")
    with pytest.raises(DataError, match="t10k-labels-idx1-ubyte"):
        open_source(f"fashion-mnist:{tmp_path}")


@pytest.mark.parametrize("name", ["fashion-mnist", "cifar10", "stl10"])
def test_a_known_set_in_an_empty_folder_is_an_error_that_says_so(tmp_path, name):
    with pytest.raises(DataError, match=name.split("-")[0].replace("fashion", "Fashion|fashion")):
        open_source(f"{name}:{tmp_path}")


# folders ------------------------------------------------------------------------------------------


def test_a_folder_with_labels_splits_by_content(photos):
    source = open_source(str(photos))
    assert len(source) == 24
    assert list(source.classes) == ["blue", "green", "red"]
    assert sorted(np.concatenate(list(source.splits.values()))) == list(range(24))
    assert source.image_size <= 64
    batch = source.read(torch.tensor([5, 0]))
    assert batch["height"].shape == (2,)
    assert len(batch["pixels"]) == int((batch["height"] * batch["width"]).sum()) * 3


def test_a_tiny_labelled_folder_still_has_a_test_part(tmp_path):
    for i in range(3):
        (tmp_path / "ab"[i % 2]).mkdir(exist_ok=True)
        Image.new("RGB", (12, 12), (i * 50, 0, 0)).save(tmp_path / "ab"[i % 2] / f"{i}.png")
    splits = open_source(str(tmp_path)).splits
    assert len(splits["train"]) + len(splits["test"]) == 3
    assert len(splits["test"]) >= 1


def test_an_item_reads_the_same_in_any_batch(photos):
    source = open_source(str(photos))
    alone, last = source.read(torch.tensor([7])), source.read(torch.tensor([1, 2, 7]))
    assert torch.equal(alone["pixels"], last["pixels"][-len(alone["pixels"]) :])


def test_train_and_test_folders_are_the_splits(tmp_path):
    for split, n in (("train", 6), ("test", 4)):
        for label in ("a", "b"):
            (tmp_path / split / label).mkdir(parents=True)
            for i in range(n // 2):
                Image.new("RGB", (20, 20), (i * 20, n, 3)).save(
                    tmp_path / split / label / f"{i}.png"
                )
    source = open_source(str(tmp_path))
    assert {k: len(v) for k, v in source.splits.items()} == {"train": 6, "test": 4}
    assert list(source.classes) == ["a", "b"]


def test_a_list_of_paths_with_labels(photos, tmp_path):
    lines = [f"photos/red/{i}.png\tcherry" for i in range(4)] + [
        f"{photos}/blue/{i}.png\tsky" for i in range(4)
    ]
    (tmp_path / "list.txt").write_text(
        "\n".join([*lines, "", "photos/green/0.png", "photos/gone.png"])
    )
    source = open_source(str(tmp_path / "list.txt"))
    assert list(source.classes) == ["cherry", "sky"]
    assert len(source) == 9
    assert source.labels.tolist().count(-1) == 1
    assert [s["path"] for s in source.skipped] == ["photos/gone.png"]


def test_odd_images_are_read_as_a_person_sees_them(tmp_path):
    rgb = Image.new("RGB", (30, 20), (200, 10, 10))
    rgb.save(tmp_path / "plain.jpg")
    rgb.convert("CMYK").save(tmp_path / "cmyk.jpg")
    rgb.quantize(4).save(tmp_path / "palette.png")
    Image.new("RGBA", (30, 20), (200, 10, 10, 0)).save(tmp_path / "clear.png")
    Image.fromarray(np.full((20, 30), 40_000, np.uint16)).save(tmp_path / "deep.png")
    Image.new("RGB", (1, 1), "red").save(tmp_path / "dot.bmp")
    Image.new("RGB", (20_000, 12), "green").save(tmp_path / "wide.png")
    turned = Image.Exif()
    turned[0x0112] = 6
    rgb.save(tmp_path / "turned.jpg", exif=turned)
    frames = [Image.new("RGB", (30, 20), c) for c in ("blue", "white")]
    frames[0].save(tmp_path / "film.gif", save_all=True, append_images=frames[1:])
    rgb.save(tmp_path / "tiff.tiff")
    rgb.save(tmp_path / "webp.webp")
    source = open_source(str(tmp_path))
    assert not source.skipped
    seen = {name: source.image(i) for i, name in enumerate(source.ids)}
    assert len(seen) == 11
    mean = {name: image.reshape(-1, 3).mean(0) for name, image in seen.items()}
    assert mean["clear.png"].min() > 250  # alpha on white
    assert abs(mean["deep.png"] - 40_000 / 257).max() < 2
    assert np.abs(mean["cmyk.jpg"] - mean["plain.jpg"]).max() < 12
    assert np.abs(mean["palette.png"] - mean["plain.jpg"]).max() < 12
    assert mean["film.gif"][2] > 200 > 50 > mean["film.gif"][0]
    assert seen["turned.jpg"].shape[0] > seen["turned.jpg"].shape[1]  # EXIF: upright
    assert seen["wide.png"].shape[1] == seen["wide.png"].shape[0]  # padded to a square


def test_what_cannot_be_used_is_skipped_counted_and_listed(photos):
    folder = photos / "red"
    (folder / "empty.png").write_bytes(b"")
    whole = (folder / "0.png").read_bytes()
    (folder / "short.png").write_bytes(whole[: len(whole) // 2])
    (folder / "text.jpg").write_text("not a picture")
    (folder / "copy.png").write_bytes(whole)
    (folder / "loop").symlink_to(photos)
    (folder / "dangling.png").symlink_to("nowhere.png")
    source = open_source(str(photos))
    reasons = {os.path.basename(s["path"]): s["reason"] for s in source.skipped}
    assert reasons.keys() == {"empty.png", "short.png", "text.jpg", "dangling.png"}
    assert reasons["empty.png"] == "the file is empty"
    assert "truncated" in reasons["short.png"]
    assert source.duplicates == 1
    assert len(source) == 25


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_skipped(photos):
    (photos / "red" / "0.png").chmod(0)
    assert open_source(str(photos)).skipped[0]["reason"].startswith("PermissionError")


def test_a_picture_too_large_to_decode_is_skipped(photos):
    raw = bytearray((photos / "red" / "0.png").read_bytes())
    raw[16:24] = struct.pack(">II", 30_000, 30_000)  # the header of a decompression bomb
    (photos / "red" / "bomb.png").write_bytes(raw)
    source = open_source(str(photos))
    assert [os.path.basename(s["path"]) for s in source.skipped] == ["bomb.png"]


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_images_is_an_error(tmp_path, count):
    for i in range(count):
        Image.new("RGB", (9, 9)).save(tmp_path / f"{i}.png")
    with pytest.raises(DataError, match=r"no images|1 usable image"):
        open_source(str(tmp_path))


def test_a_missing_folder_names_what_could_be_meant():
    with pytest.raises(DataError, match="did you mean 'digits'"):
        open_source("digit")
    with pytest.raises(DataError, match="digits does not exist"):
        open_source("./digits")
    with pytest.raises(ConfigError, match="did you mean 'digits'"):
        open_source("scenes:digts")


def test_the_cache_is_reused_and_bounded(photos, tmp_path):
    first = open_source(str(photos), cache=tmp_path / "c")
    entry = next((tmp_path / "c" / "packed").rglob("pixels.bin")).parent
    written = (entry / "pixels.bin").stat().st_mtime_ns
    again = open_source(str(photos), cache=tmp_path / "c")
    assert (entry / "pixels.bin").stat().st_mtime_ns == written
    assert again.fingerprint == first.fingerprint
    with pytest.raises(DataError, match="--image-size") as error:
        open_source(str(photos), cache=tmp_path / "d", cache_limit=1e-6)
    assert "--cache-limit" in str(error.value)
    assert not list((tmp_path / "d" / "packed").rglob("pixels.bin"))
    os.utime(photos / "red" / "0.png", (1, 1))
    open_source(str(photos), cache=tmp_path / "c")
    assert len(list((tmp_path / "c" / "packed").rglob("pixels.bin"))) == 2
    old = Cache(tmp_path / "c", limit=(entry / "pixels.bin").stat().st_size * 1.5)
    old._trim(keep=max((tmp_path / "c" / "packed").iterdir(), key=lambda p: p.stat().st_mtime))
    assert len(list((tmp_path / "c" / "packed").rglob("pixels.bin"))) == 1


def test_a_cache_that_cannot_be_written_is_an_error(photos, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot write"):
        open_source(str(photos), cache=tmp_path / "file")


def test_the_fingerprint_follows_contents_not_places(photos, tmp_path):
    before = open_source(str(photos)).fingerprint
    moved = tmp_path / "elsewhere"
    photos.rename(moved)
    assert open_source(str(moved)).fingerprint == before
    Image.new("RGB", (30, 30)).save(moved / "red" / "0.png")
    assert open_source(str(moved)).fingerprint != before


def test_holding_out_is_by_hash_and_disjoint(digits):
    rest, cut = digits.split("train").hold_out(287)
    assert len(cut) == 287
    assert not set(rest.ids) & set(cut.ids)
    assert cut.ids == digits.split("train").hold_out(287)[1].ids
    with pytest.raises(DataError, match="cannot hold"):
        digits.hold_out(1797)


# scenes -------------------------------------------------------------------------------------------


def _items(n=12):
    return np.random.default_rng(0).integers(0, 256, (n, 28, 28), dtype=np.uint8)


def test_a_scene_does_not_depend_on_its_batch():
    whole = scenes_module.compose(_items(), seed=1)
    part = scenes_module.compose(_items()[7:], seed=1, first=7)
    assert np.array_equal(whole.images[7:], part.images)
    assert np.array_equal(whole.boxes[7:], part.boxes)


def test_seed_copy_and_size_make_other_scenes():
    base = scenes_module.compose(_items(), seed=1).images
    assert not np.array_equal(base, scenes_module.compose(_items(), seed=2).images)
    assert not np.array_equal(base, scenes_module.compose(_items(), seed=1, copy=1).images)
    assert scenes_module.compose(_items(), seed=1, size=48).images.shape == (12, 48, 48, 3)
    with pytest.raises(ConfigError, match="32 pixels or more"):
        scenes_module.compose(_items(), seed=1, size=31)


def test_boxes_hold_the_object_exactly():
    """A white square on black: recompute its position from the random numbers themselves."""
    items = np.full((40, 28, 28), 255, np.uint8)
    scenes = scenes_module.compose(items, seed=3, size=64)
    numbers = scenes_module._numbers(3, 0, 0, 40).numpy()
    scale, angle = 0.55 + 0.45 * numbers[:, -4], 0.8 * numbers[:, -3] - 0.4
    reach = np.minimum(
        scale * (np.abs(np.cos(angle)) + np.abs(np.sin(angle))), 2.0
    )  # half width of the turned square
    centre = (2 * numbers[:, -2:] - 1) * (1 - scale)[:, None]
    low = np.clip((centre - reach[:, None] + 1) * 32, 0, 64)
    high = np.clip((centre + reach[:, None] + 1) * 32, 0, 64)
    assert np.abs(scenes.boxes[:, :2] - low).max() < 2
    assert np.abs(scenes.boxes[:, 2:] - high).max() < 2


def test_a_scene_without_a_visible_object_has_an_empty_box():
    assert scenes_module.compose(np.zeros((1, 28, 28), np.uint8), seed=1).boxes.tolist() == [
        [0, 0, 0, 0]
    ]


@pytest.mark.fashion_mnist
def test_scenes_v1_is_frozen(fashion):
    """The first ten training scenes, to the byte."""
    items = np.stack([fashion.image(i)[:, :, 0] for i in range(10)])
    made = scenes_module.compose(items, seed=1)
    digest = hashlib.blake2b(
        made.images.tobytes() + made.boxes.tobytes(), digest_size=16
    ).hexdigest()
    assert digest == "3829435bdcb782c11fa7e22d99403daa"


def test_scenes_of_digits_keep_labels_and_splits():
    source = open_source("scenes:digits")
    assert source.channels == 3
    assert source.image_size == 32
    assert {k: len(v) for k, v in source.splits.items()} == {"train": 1437, "test": 360}


# the sampler --------------------------------------------------------------------------------------


def test_an_epoch_visits_everything_once_and_is_a_function_of_seed_and_epoch():
    order = epoch_order(101, 3, 4)
    assert sorted(order.tolist()) == list(range(101))
    epoch_order.cache_clear()
    assert torch.equal(order, epoch_order(101, 3, 4))
    assert not torch.equal(order, epoch_order(101, 3, 5))
    assert not torch.equal(order, epoch_order(101, 4, 4))


def test_no_instance_twice_in_an_epoch_and_batches_are_whole():
    steps = steps_per_epoch(103, 10)
    seen = torch.cat([batch_at(s, 103, 10, 0) for s in range(steps)])
    assert len(seen) == len(seen.unique()) == 100
    with pytest.raises(ConfigError, match=r"batch must lie in 1..5"):
        batch_at(0, 5, 6, 0)


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
def test_links_to_folders_are_followed_once(photos, tmp_path):
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "here").symlink_to(photos / "red")
    assert len(open_source(str(tmp_path / "linked"))) == 8
