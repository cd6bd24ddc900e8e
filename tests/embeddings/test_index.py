"""Search: exact against a plain product, approximate against exact, changes, files, bad input."""

import numpy as np
import pytest

from tellapart import Embeddings, Index
from tellapart.errors import ConfigError, DataError, MissingExtraError

KINDS = ("exact", "flat", "hnsw", "ivf-pq")


def items(count=600, width=16, seed=0, prefix="i"):
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((12, width)) * 2
    rows = centres[rng.integers(0, 12, count)] + rng.standard_normal((count, width))
    return Embeddings(
        rows * rng.uniform(0.1, 9, (count, 1)), [f"{prefix}{i}" for i in range(count)]
    )


def by_hand(embeddings, queries, k):
    a = embeddings.vectors / np.linalg.norm(embeddings.vectors, axis=1, keepdims=True)
    q = queries / np.linalg.norm(queries, axis=1, keepdims=True)
    s = q @ a.T
    row = np.argsort(-s, axis=1)[:, :k]
    return np.take_along_axis(s, row, 1), row


@pytest.mark.parametrize("kind", ["exact", "flat"])
def test_exact_kinds_find_what_a_plain_product_finds(kind):
    embeddings, queries = items(), items(7, seed=1).vectors
    similarity, row = Index(embeddings, kind=kind).search(queries, 9)
    expected, rows = by_hand(embeddings, queries, 9)
    np.testing.assert_allclose(similarity, expected, atol=1e-5)
    assert (row == rows).all()
    assert similarity.dtype == np.float32
    assert row.dtype == np.int64


@pytest.mark.parametrize(
    ("kind", "least"), [("exact", 1.0), ("flat", 1.0), ("hnsw", 0.9), ("ivf-pq", 0.6)]
)
def test_recall_is_measured_against_the_exact_search(kind, least):
    index = Index(items(2000), kind=kind)
    assert least <= index.recall <= 1
    queries = items(50, seed=2).vectors
    _, row = index.search(queries, 10)
    _, exact = by_hand(index.embeddings, queries, 10)
    shared = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(row, exact, strict=True)])
    assert shared >= least - 0.1


@pytest.mark.parametrize("kind", KINDS)
def test_changes_equal_an_index_built_anew(kind):
    start, more = items(500), items(200, seed=3, prefix="n")
    index = Index(start, kind=kind)
    index.add(more)
    index.remove(["i3", "n7", "i499"])
    assert len(index) == 697
    changed = Embeddings(-start.vectors[10:12], ["i10", "i11"])
    index.update(changed)
    assert len(index) == 697
    similarity, row = index.search(changed.vectors, 1)
    assert [index.embeddings.ids[r] for r in row[:, 0]] == ["i10", "i11"]
    if kind != "ivf-pq":
        np.testing.assert_allclose(similarity, 1, atol=1e-5)
    gone = start.vectors[3:4]
    assert "i3" not in {index.embeddings.ids[r] for r in index.search(gone, 20)[1][0]}


@pytest.mark.parametrize("kind", KINDS)
def test_saved_and_opened_it_answers_alike(kind, tmp_path):
    index = Index(items(600), kind=kind)
    index.remove(["i5"])
    index.save(tmp_path / "index")
    again = Index.load(tmp_path / "index")
    queries = items(9, seed=4).vectors
    for before, after in zip(index.search(queries, 5), again.search(queries, 5), strict=True):
        np.testing.assert_array_equal(before, after)
    assert isinstance(again.embeddings.vectors, np.memmap)
    assert again.recall == index.recall
    again.save(tmp_path / "index")  # over the files that it is mapped from
    np.testing.assert_array_equal(
        Index.load(tmp_path / "index").search(queries, 5)[1], again.search(queries, 5)[1]
    )


def test_a_folder_of_embeddings_alone_is_an_exact_index(tmp_path):
    items().save(tmp_path / "e")
    assert Index.load(tmp_path / "e").kind == "exact"


def test_a_save_cut_off_between_files_is_told(tmp_path):
    Index(items(600)).save(tmp_path / "index")
    np.save(tmp_path / "index" / "vectors.npy", items(600, seed=9).vectors)
    with pytest.raises(DataError, match="earlier save was interrupted"):
        Index.load(tmp_path / "index")


def test_damaged_files_are_told(tmp_path):
    Index(items(600), kind="hnsw").save(tmp_path / "index")
    (tmp_path / "index" / "index.faiss").write_bytes(b"nothing")
    with pytest.raises(DataError, match="does not hold an index"):
        Index.load(tmp_path / "index")


def test_bad_input():
    index = Index(items(20))
    for k in (0, 21):
        with pytest.raises(ConfigError, match=r"k must lie in 1\.\.20"):
            index.search(items(1).vectors, k)
    with pytest.raises(ConfigError, match="Q, 16"):
        index.search(np.zeros((1, 3)), 1)
    with pytest.raises(DataError, match="not finite"):
        index.search(np.full((1, 16), np.nan), 1)
    with pytest.raises(DataError, match="already"):
        index.add(items(1))
    with pytest.raises(DataError, match="not in the index"):
        index.remove(["nobody"])
    with pytest.raises(ConfigError, match="one item or more"):
        index.remove([f"i{i}" for i in range(20)])
    with pytest.raises(ConfigError, match="did you mean 'hnsw'"):
        Index(items(20), kind="hnws")
    with pytest.raises(ConfigError, match="256 items"):
        Index(items(20), kind="ivf-pq")


def test_the_missing_extra_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "faiss", None)
    with pytest.raises(MissingExtraError, match=r"tellapart\[index\]"):
        Index(items(20), kind="flat")


def test_a_vector_of_zeros_is_like_nothing():
    index = Index(Embeddings(np.array([[0.0, 0.0], [1.0, 0.0]]), "ab"))
    similarity, row = index.search(np.array([[1.0, 0.0]]), 2)
    assert row.tolist() == [[1, 0]]
    assert similarity.tolist() == [[1.0, 0.0]]
