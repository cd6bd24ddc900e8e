"""Inspect: finds planted copies, no look-alikes; summaries; training without duplicates."""

import json
import re
import shutil
import wave

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageEnhance, ImageOps

from tellapart.curation import duplicates, inspect, outliers
from tellapart.data import open_source, scenes
from tellapart.errors import ConfigError, DataError
from tellapart.reports import dataset_report
from tellapart.runtime.console import Console

QUIET = Console(quiet=True)


def look(data, **options):
    return inspect.inspect_source(str(data), console=QUIET, **options)


def noise(count, seed, side=48):
    """Coloured pictures with coarse and fine parts."""
    draw = torch.Generator().manual_seed(seed)
    parts = [
        torch.nn.functional.interpolate(
            torch.rand(count, 3, s, s, generator=draw), (side, side), mode="bicubic"
        )
        / 3
        for s in (3, 7, 20)
    ]
    return (sum(parts).clamp(0, 1) * 255).byte().permute(0, 2, 3, 1).numpy()


def plant(folder, images, seed, each=8):
    """Images and copies of three kinds; the name of a copy begins with that of its original."""
    random = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    for i, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{i:04d}.png")
    for j, i in enumerate(random.permutation(len(images))[: 3 * each]):
        picture = Image.fromarray(images[i])
        w, h = picture.size
        if j % 3 == 0:
            scale = random.uniform(0.6, 1.5)
            picture.resize((round(w * scale), round(h * scale))).save(
                folder / f"{i:04d}-resized.png"
            )
        elif j % 3 == 1:
            picture.save(folder / f"{i:04d}-jpeg.jpg", quality=int(random.integers(40, 71)))
        else:
            cut = 1 + random.integers(0, max(1, w // 32), 4)
            picture.crop((cut[0], cut[1], w - cut[2], h - cut[3])).save(
                folder / f"{i:04d}-cropped.png"
            )
    return 3 * each


def found_and_right(seen):
    ids = seen.source.ids
    pairs = [
        (ids[a], ids[b]) for g in seen.copies.together for i, a in enumerate(g) for b in g[i + 1 :]
    ]
    right = {a + b for a, b in pairs if a[:4] == b[:4]}
    return len(right), len(pairs)


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("kind", ["noise", "scenes", "fashion"])
def test_planted_copies_are_found_and_look_alikes_are_not(kind, seed, tmp_path, request):
    if kind == "noise":
        images = noise(400, seed)
    else:
        source = request.getfixturevalue("fashion")
        shirts = np.flatnonzero(source.labels == 6)[400 * seed : 400 * seed + 400]
        images = np.stack([source.image(int(r))[:, :, 0] for r in shirts])
        if kind == "scenes":
            images = scenes.compose(images, seed=seed, size=64).images
    planted = plant(tmp_path / "set", images, seed)
    found, pairs = found_and_right(look(tmp_path / "set"))
    assert found >= 0.9 * planted
    assert found >= 0.9 * pairs


def test_different_digits_are_not_called_copies():
    seen = look("digits")
    assert seen.result["duplicates"]["extra"] <= 5
    assert seen.result["duplicates"]["exact"]["groups"] == 0
    assert seen.result["labels"]["items"] < 60
    assert seen.result["counts"]["splits"] == {"train": 1437, "test": 360}
    json.dumps(seen.result, allow_nan=False)


@pytest.fixture
def leaky(tmp_path):
    """train/ and test/ of two classes, with exact and near copies inside and across."""
    images = noise(40, 5)
    root = tmp_path / "leaky"
    for i, image in enumerate(images):
        folder = root / ("test" if i >= 30 else "train") / ("odd" if i % 2 else "even")
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{i:02d}.png")
    (root / "train/even/copy.png").write_bytes((root / "train/even/00.png").read_bytes())
    (root / "train/odd/leak.png").write_bytes((root / "test/odd/31.png").read_bytes())
    Image.fromarray(images[32]).save(root / "train/even/near.jpg", quality=60)
    (root / "train/odd/other-label.png").write_bytes((root / "train/even/02.png").read_bytes())
    return root


def test_leaks_and_copies_with_other_labels_are_named(leaky):
    copies = look(leaky).result["duplicates"]
    assert copies["exact"]["groups"] == 3
    assert copies["near"]["first"] == [["test/even/32.png", "train/even/near.jpg"]]
    assert copies["leaks"]["items"] == 2
    assert copies["leaks"]["exact"] == 1
    assert {"train": "train/odd/leak.png", "test": "test/odd/31.png", "kind": "exact"} in copies[
        "leaks"
    ]["first"]
    assert copies["of_several_labels"]["first"] == [
        ["train/even/02.png", "train/odd/other-label.png"]
    ]


def test_a_list_without_copies_is_a_source(leaky, tmp_path):
    out = tmp_path / "lists" / "clean.txt"
    before = sorted(leaky.rglob("*"))
    result = look(leaky, apply=out).result
    assert result["applied"] == {"file": str(out), "items": 40, "dropped": 4}
    again = open_source(str(out))
    assert len(again) == 40
    assert list(again.classes) == ["even", "odd"]
    names = "\n".join(again.ids)
    for gone in (
        "leak.png",
        "near.jpg",
        "copy.png",
        "other-label.png",
    ):  # of a leak the training copy goes
        assert gone not in names
    assert look(out).result["duplicates"]["extra"] == 0
    assert sorted(leaky.rglob("*")) == before
    with pytest.raises(DataError, match="left as it is"):
        look(leaky, apply=out)


def test_links_and_names_that_a_list_cannot_hold(tmp_path):
    images, folder = noise(4, 2), tmp_path / "links"
    (tmp_path / "far").mkdir()
    folder.mkdir()
    for i, image in enumerate(images):
        Image.fromarray(image).save((tmp_path / "far" if i == 0 else folder) / f"{i}.png")
    (folder / "link.png").symlink_to(tmp_path / "far" / "0.png")
    look(folder, apply=tmp_path / "ok.txt")
    assert len(open_source(str(tmp_path / "ok.txt"))) == 4
    (folder / "1.png").rename(folder / "a\tb.png")
    (folder / "2.png").rename(folder / '"c".png')
    look(folder, apply=tmp_path / "quoted.txt")
    assert len(open_source(str(tmp_path / "quoted.txt"))) == 4
    (folder / "3.png").rename(folder / "a\nb.png")
    with pytest.raises(DataError, match="cannot name"):
        look(folder, apply=tmp_path / "no.txt")
    assert not (tmp_path / "no.txt").exists()


def test_a_known_set_has_no_files_to_list(tmp_path):
    with pytest.raises(DataError, match="without files"):
        look("digits", apply=tmp_path / "x.txt")


def test_sizes_true_formats_and_what_is_broken(photos):
    Image.fromarray(noise(1, 9)[0]).save(photos / "red" / "liar.png", format="JPEG")
    (photos / "red" / "empty.png").write_bytes(b"")
    (photos / "red" / "words.jpg").write_text("no picture")
    result = look(photos).result
    assert result["formats"] == {"PNG": 24, "JPEG": 1}
    assert result["modes"] == {"RGB": 25}
    assert result["wrong_endings"]["first"][0]["file"].endswith("liar.png")
    assert result["skipped"]["files"] == 2
    assert "the file is empty" in result["skipped"]["reasons"]
    assert 40 <= result["sizes"]["width"]["min"] <= result["sizes"]["width"]["median"] <= 90
    assert result["counts"]["classes"] == {"blue": 8, "green": 8, "red": 9}
    assert any("few" in w for w in result["training"]["warnings"])
    assert result["training"]["preset"] == "simclr_folder"
    assert result["training"]["batch_size"] <= 25


def test_the_page_needs_no_other_file(leaky, tmp_path, capsys):
    seen = look(leaky)
    dataset_report.write_page(seen, tmp_path / "p.html", QUIET)
    words = (tmp_path / "p.html").read_text()
    assert not re.search(r"<script|https?://|src=\"(?!data:)|href=", words)
    assert len(re.findall("data:image/(png|jpeg);base64,", words)) >= 20
    assert "Training items in the test part" in words
    dataset_report.print_inspection(seen.result, Console())
    said = capsys.readouterr().err
    assert "near.jpg" in said
    assert "2 training items are also in the test part" in said
    with pytest.raises(DataError, match="folder"):
        dataset_report.write_page(seen, tmp_path, QUIET)


def test_copies_in_a_batch_as_simulated():
    sizes, items, batch = [2, 2, 5], 60, 16
    said = duplicates.in_a_batch(sizes, items, batch)
    group = np.concatenate([np.repeat(np.arange(3), sizes), np.arange(3, 3 + items - sum(sizes))])
    random = np.random.default_rng(0)
    pairs, having = [], []
    for _ in range(6000):
        counts = np.bincount(group[random.permutation(items)[:batch]])
        pairs.append((counts * (counts - 1) / 2).sum())
        having.append(counts[counts > 1].sum() / batch)
    assert said["pairs"] == pytest.approx(np.mean(pairs), rel=0.05)
    assert said["item"] == pytest.approx(np.mean(having), rel=0.05)
    assert duplicates.in_a_batch([], 10, 4) == {"pairs": 0.0, "item": 0.0, "items": 0.0}
    assert duplicates.in_a_batch([5], 5, 5)["item"] == 1.0
    assert duplicates.in_a_batch([2], 2, 1)["pairs"] == 0.0


def test_labels_that_neighbours_contradict():
    labels = np.array([0, 0, 0, 0, 1, -1])
    near = torch.tensor(
        [[1, 2, 3, 5], [0, 2, 3, 5], [0, 1, 3, 5], [0, 1, 2, 5], [0, 1, 2, 5], [0, 1, 2, 3]]
    )
    odd = {"row": 4, "label": 1, "neighbours": 0, "share": 1.0}
    assert outliers.suspect_labels(labels, near) == [odd]
    assert outliers.suspect_labels(np.full(6, -1), near) == []
    assert outliers.suspect_labels(None, near) == []


def test_sentences(tmp_path):
    lines = [
        f"the {a} house of {b} stands on hill {i}"
        for i, (a, b) in enumerate([("old", "Ann"), ("red", "Bo")] * 15)
    ]
    lines += ["The OLD house, of Ann stands on hill 0!", lines[3], "quarks bind gluons"]
    (tmp_path / "s.txt").write_text("\n".join(lines))
    seen = look(tmp_path / "s.txt", apply=tmp_path / "clean.txt")
    copies = seen.result["duplicates"]
    assert ["4", "32"] in copies["exact"]["first"]
    assert any({"1", "31"} <= set(g) for g in copies["near"]["first"])
    assert seen.result["lengths"]["unit"] == "words"
    assert seen.result["training"]["method"] == "simcse"
    assert len(open_source(str(tmp_path / "clean.txt"))) == len(lines) - copies["extra"]
    dataset_report.write_page(seen, tmp_path / "p.html", QUIET)
    with pytest.raises(DataError, match=r"\.txt"):
        look(tmp_path / "s.txt", apply=tmp_path / "clean.tsv")


def test_sounds(tmp_path):
    pytest.importorskip("soundfile")
    random = np.random.default_rng(0)
    folder = tmp_path / "calls"
    folder.mkdir()

    def save(name, samples, rate=8000):
        with wave.open(str(folder / name), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(rate)
            file.writeframes((samples * 20000).astype("<i2").tobytes())

    time = np.arange(8000) / 8000
    for i in range(12):
        tone = np.sin(2 * np.pi * (200 + 250 * i) * time) * np.exp(
            -((time - random.uniform(0.2, 0.8)) ** 2) * 40
        )
        save(f"{i:02d}.wav", tone)
        if i == 3:
            save("again.wav", tone)
            save("quieter.wav", 0.95 * tone)
    seen = look(folder, apply=tmp_path / "clean.txt")
    result = seen.result
    assert result["duplicates"]["exact"]["first"] == [["03.wav", "again.wav"]]
    assert result["duplicates"]["near"]["first"] == [["03.wav", "again.wav", "quieter.wav"]]
    assert result["lengths"] == {"min": 1.0, "median": 1.0, "max": 1.0, "unit": "s"}
    assert result["rates"] == {"8000": 14}
    assert result["training"]["preset"] == "cpc_audio"
    assert len(open_source(str(tmp_path / "clean.txt"))) == 12
    dataset_report.write_page(seen, tmp_path / "p.html", QUIET)


def test_series(tmp_path):
    random = np.random.default_rng(0)
    folder = tmp_path / "walks"
    folder.mkdir()
    for i in range(12):
        walk = random.normal(size=(300, 2)).cumsum(0).astype(np.float32)
        np.save(folder / f"{i:02d}.npy", walk)
        if i == 4:
            np.save(
                folder / "near.npy", walk + random.normal(0, 0.01, walk.shape).astype(np.float32)
            )
    result = look(folder).result
    assert result["duplicates"]["near"]["first"] == [["04.npy", "near.npy"]]
    assert result["lengths"] == {"min": 300.0, "median": 300.0, "max": 300.0, "unit": "steps"}
    assert result["channels"] == 2


def test_what_is_hardly_a_source_has_a_clear_answer(tmp_path):
    for name in ("missing", "empty", "one", "broken"):
        if name != "missing":
            (tmp_path / name).mkdir()
    images = noise(3, 0)
    Image.fromarray(images[0]).save(tmp_path / "one" / "a.png")
    for i in range(3):
        (tmp_path / "broken" / f"{i}.png").write_text("no")
    for name in ("missing", "empty", "one", "broken"):
        with pytest.raises(DataError):
            look(tmp_path / name)
    two, same, one_class = tmp_path / "two", tmp_path / "same", tmp_path / "one-class" / "a"
    for folder in (two, same, one_class):
        folder.mkdir(parents=True)
    for i in range(2):
        Image.fromarray(images[i]).save(two / f"{i}.png")
    for i in range(15):
        Image.fromarray(images[2]).save(same / f"{i}.png")
    for i in range(3):
        Image.fromarray(images[i]).save(one_class / f"{i}.png")
    assert look(two).result["duplicates"]["extra"] == 0
    found = look(same).result
    assert found["duplicates"]["exact"]["extra"] == 14
    assert found["training"]["false_negatives"]["item"] == 1.0
    json.dumps(found, allow_nan=False)
    assert look(tmp_path / "one-class").result["labels"] is None
    Image.fromarray(np.zeros((20, 20), np.uint8)).save(two / "black.png")
    Image.fromarray(np.full((20, 20), 255, np.uint8)).save(two / "white.png")
    assert look(two).result["duplicates"]["extra"] == 0


def test_more_equal_pictures_than_neighbours_are_one_group(tmp_path):
    image = noise(1, 3)[0]
    for i in range(30):  # the same pixels in files that differ
        Image.fromarray(image).save(
            tmp_path / f"{i}.png", compress_level=i % 9 + 1 if i < 9 else 9, dpi=(i + 1, i + 1)
        )
    assert look(tmp_path).result["duplicates"]["near"]["extra"] == 29


def test_methods_and_encoders_that_do_not_go_with_the_data(photos, tmp_path):
    with pytest.raises(ConfigError, match="did you mean"):
        look("digits", method="simclrr")
    with pytest.raises(ConfigError, match="no settings"):
        look("digits", method="simcse")
    with pytest.raises(ConfigError, match="not a run folder"):
        look("digits", encoder="nothing")
    assert look("digits", method="simclr").result["training"]["preset"] == "simclr_digits"


def test_neighbours_by_an_encoder(tmp_path):
    import tellapart as ta

    ta.train("instdisc", data="digits", out=tmp_path / "run", steps=2)
    result = look("digits", encoder=str(tmp_path / "run")).result
    assert result["neighbours_by"] == str(tmp_path / "run")
    assert result["duplicates"]["extra"] <= 5


@pytest.mark.parametrize("kind", ["images", "audio", "series"])
def test_the_applied_list_keeps_labels_and_splits(tmp_path, kind):
    soundfile = pytest.importorskip("soundfile")
    random = np.random.default_rng(0)
    for part, count in (("Training", 6), ("dev", 3)):
        for label in ("cat", "dog"):
            folder = tmp_path / "set" / part / label
            folder.mkdir(parents=True)
            for i in range(count):
                if kind == "images":
                    pixels = random.integers(0, 256, (20, 20, 3), np.uint8)
                    Image.fromarray(pixels).save(folder / f"{i}.png")
                elif kind == "audio":
                    soundfile.write(folder / f"{i}.wav", 0.2 * random.standard_normal(2000), 4000)
                else:
                    np.save(folder / f"{i}.npy", random.standard_normal((200, 2)))
    before = open_source(str(tmp_path / "set"))
    test = before.all_files[before.parts["test"][0]]
    shutil.copy(test, tmp_path / "set" / "Training" / "cat" / f"leak{test.suffix}")
    look(tmp_path / "set", apply=tmp_path / "kept.txt")
    after = open_source(str(tmp_path / "kept.txt"))
    assert list(after.classes) == ["cat", "dog"]
    assert {name: len(rows) for name, rows in after.splits.items()} == {"train": 12, "test": 6}
    assert all("/dev/" in after.all_ids[i] for i in after.parts["test"])


# copies by kind ----------------------------------------------------------------------------------


def pictures(count, seed):
    """Photograph-like noise in colour, 200 x 150 pixels."""
    draw = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        layers = [
            np.asarray(
                Image.fromarray((draw.random((n, n, 3)) * 255).astype(np.uint8)).resize(
                    (200, 150), Image.Resampling.BICUBIC
                ),
                float,
            )
            / n**0.5
            for n in (3, 6, 12, 25, 50)
        ]
        whole = sum(layers)
        made.append(Image.fromarray((255 * (whole - whole.min()) / np.ptp(whole)).astype(np.uint8)))
    return made


def drawing(seed):
    """A few black strokes on a large white ground, most of it empty."""
    draw = np.random.default_rng(seed)
    picture = Image.new("RGB", (240, 240), "white")
    place = draw.integers(20, 130, 2)
    points = [tuple(int(v) for v in place + draw.integers(0, 80, 2)) for _ in range(9)]
    ImageDraw.Draw(picture).line(points, fill="black", width=5)
    return picture


CHANGES = {
    "mirrored": ImageOps.mirror,
    "turned 90": lambda p: p.transpose(Image.Transpose.ROTATE_90),
    "turned 180": lambda p: p.transpose(Image.Transpose.ROTATE_180),
    "turned and mirrored": lambda p: ImageOps.mirror(p.transpose(Image.Transpose.ROTATE_270)),
    "gray": lambda p: p.convert("L").convert("RGB"),
    "brighter": lambda p: ImageEnhance.Brightness(p).enhance(1.2),
    "darker": lambda p: ImageEnhance.Brightness(p).enhance(0.75),
    "gamma": lambda p: p.point(lambda v: int(255 * (v / 255) ** 0.8)),
    "less contrast": lambda p: ImageEnhance.Contrast(p).enhance(0.7),
    "black border": lambda p: ImageOps.expand(p, 20, "black"),
    "red border": lambda p: ImageOps.expand(p, 12, "red"),
    "letterbox": lambda p: ImageOps.expand(p, (0, 30, 0, 30), "black"),
    "cropped": lambda p: p.crop((p.width // 12, p.height // 12, p.width * 11 // 12, p.height)),
    "smaller": lambda p: p.resize((p.width // 2, p.height // 2)),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("kind", ["photographs", "drawings"])
def test_changed_copies_are_found_and_others_are_not(tmp_path, change, kind):
    if kind == "drawings" and change in ("cropped", "letterbox"):
        pytest.skip("a crop of a mostly empty ground, or more of it, changes little there")
    base = pictures(24, 1) if kind == "photographs" else [drawing(s) for s in range(24)]
    for i, picture in enumerate(base):
        picture.save(tmp_path / f"b{i:02d}.png")
        if i < 6:
            CHANGES[change](picture).save(tmp_path / f"c{i:02d}.png")
    seen = look(tmp_path)
    groups = [[seen.source.ids[i] for i in g] for g in seen.copies.together]
    assert groups == [[f"b{i:02d}.png", f"c{i:02d}.png"] for i in range(6)]


@pytest.mark.parametrize("seed", range(3))
def test_faint_and_mostly_empty_pictures_are_not_one_group(tmp_path, seed):
    """Small marks on white, some of them faint: their grounds are equal, what is drawn is not."""
    for i in range(30):
        picture = drawing(100 * seed + i)
        if i % 2:
            picture = Image.blend(picture, Image.new("RGB", picture.size, "white"), 0.9)
        picture.save(tmp_path / f"{i:02d}.png")
    drawing(100 * seed + 4).resize((120, 120)).save(tmp_path / "copy.png")
    seen = look(tmp_path)
    groups = [[seen.source.ids[i] for i in g] for g in seen.copies.together]
    assert groups == [["04.png", "copy.png"]]


def test_every_member_of_a_group_is_near_its_representative():
    """A chain of 40, each near the next: groups of three, never one of 40."""
    pairs = [(i, i + 1) for i in range(39)]
    groups = duplicates.groups_around(pairs, [], 40)
    near = {frozenset(pair) for pair in pairs}
    for group in groups:
        assert any(
            all(frozenset((centre, i)) in near for i in group if i != centre) for centre in group
        )
    members = [i for group in groups for i in group]
    assert len(members) == len(set(members))
    star = [(0, i) for i in range(1, 9)]
    assert duplicates.groups_around(star, [[8, 9]], 10) == [list(range(10))]


def test_a_training_item_near_a_test_item_leaks_though_it_is_grouped_elsewhere():
    pairs = [(0, 1), (0, 2), (2, 3)]
    copies = duplicates.Copies([], [[0, 1, 2]], duplicates.groups_around(pairs, [], 4), pairs)
    splits = {"train": np.array([0, 1, 2]), "test": np.array([3])}
    assert [leak["train"] for leak in duplicates.leaks(copies, splits)] == [2]
    assert 2 not in duplicates.kept(copies, splits, 4)
    assert 3 in duplicates.kept(copies, splits, 4)


@pytest.mark.parametrize(("answers", "batch"), [(10, 16), (3, 8), (40, 16)])
def test_pairs_that_share_a_sentence_collide(tmp_path, answers, batch):
    """The share of a batch that meets an equal sentence, against a simulation."""
    which = np.arange(120) % answers
    lines = [f"question number {i}\tanswer {w} of the list" for i, w in enumerate(which)]
    (tmp_path / "p.tsv").write_text("\n".join(lines))
    source = open_source(str(tmp_path / "p.tsv"))
    found = duplicates.collisions(duplicates.equal_texts(source), 120, batch)
    draw, meets, pairs = np.random.default_rng(0), [], []
    for _ in range(4000):
        counts = np.bincount(which[draw.permutation(120)[:batch]])
        meets.append(counts[counts > 1].sum() / batch)
        pairs.append((counts * (counts - 1) / 2).sum())
    assert found["item"] == pytest.approx(np.mean(meets), rel=0.05)
    assert found["pairs"] == pytest.approx(np.mean(pairs), rel=0.05)
    assert look(tmp_path / "p.tsv").result["training"]["false_negatives"]["item"] > 0.3


@pytest.mark.parametrize("kind", ["sounds", "series", "text"])
def test_advice_fits_the_kind_of_data(tmp_path, kind):
    random = np.random.default_rng(0)
    if kind == "text":
        (tmp_path / "s.txt").write_text("\n".join(f"line {i} says {i * i}" for i in range(20)))
        warnings = look(tmp_path / "s.txt").result["training"]["warnings"]
    else:
        for i in range(12):
            if kind == "series":
                np.save(tmp_path / f"{i}.npy", random.normal(size=(300, 2)).astype(np.float32))
                continue
            pytest.importorskip("soundfile")
            with wave.open(str(tmp_path / f"{i}.wav"), "wb") as file:
                file.setnchannels(1)
                file.setsampwidth(2)
                file.setframerate(8000)
                file.writeframes((random.normal(size=8000) * 5000).astype("<i2").tobytes())
        warnings = look(tmp_path).result["training"]["warnings"]
    assert any("are few to learn from" in w for w in warnings)
    assert not any("timm" in w or "(s)" in w for w in warnings)
