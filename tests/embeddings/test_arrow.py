"""Embeddings as Arrow tables, data frames and parquet files, read by the real libraries."""

import json
import sys

import numpy as np
import pytest

import tellapart as ta
from tellapart import api, cli
from tellapart.embeddings import Embeddings
from tellapart.embeddings.collection import open_collection
from tellapart.errors import ConfigError, DataError, MissingExtraError

pa = pytest.importorskip("pyarrow")
pd = pytest.importorskip("pandas")
parquet = pytest.importorskip("pyarrow.parquet")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The digits, embedded by an untrained network, as .npz and as .parquet."""
    folder = tmp_path_factory.mktemp("arrow")
    ta.train("instdisc", data="digits", out=folder / "run", steps=1)
    for name in ("v.npz", "v.parquet"):
        ta.embed(folder / "run", out=folder / name)
    return folder


def test_a_parquet_file_holds_what_the_npz_holds(made):
    a, b = (Embeddings.load(made / name) for name in ("v.npz", "v.parquet"))
    np.testing.assert_array_equal(a.vectors, b.vectors)
    np.testing.assert_array_equal(a.labels, b.labels)
    assert a.ids == b.ids
    assert a.provenance == b.provenance


def test_the_columns_are_those_of_the_guide(made):
    table = parquet.read_table(made / "v.parquet")
    assert table.column_names == ["id", "vector", "label", "split", "hash"]
    assert pa.types.is_fixed_size_list(table.schema.field("vector").type)
    assert table.schema.field("vector").type.list_size == 64
    assert set(table.column("split").to_pylist()) == {"train", "test"}
    assert set(table.column("label").to_pylist()) == {str(i) for i in range(10)}


def test_photographs_carry_their_hashes_and_class_names(photos, tmp_path):
    ta.train("simclr", data=photos, out=tmp_path / "run", steps=1, batch_size=8, image_size=32)
    ta.embed(tmp_path / "run", out=tmp_path / "v.parquet", output="patches")
    frame = pd.read_parquet(tmp_path / "v.parquet")
    assert set(frame["label"]) == {"red", "green", "blue"}
    assert frame["hash"].notna().all()
    assert frame["hash"].nunique() == 24
    again = ta.embed(tmp_path / "run", out=tmp_path / "v.parquet", output="patches")
    assert (
        again.provenance["hashes"] == Embeddings.load(tmp_path / "v.parquet").provenance["hashes"]
    )


@pytest.mark.parametrize("labels", [None, [0, -1, 2], np.full(3, -1)])
@pytest.mark.parametrize("way", ["arrow", "pandas", "parquet"])
def test_round_trips(labels, way, tmp_path):
    items = Embeddings(np.eye(3), ["a", "b", "c"], labels, {"encoder": "x", "n": 1})
    if way == "parquet":
        items.save(tmp_path / "v.parquet")
        again = Embeddings.load(tmp_path / "v.parquet")
    elif way == "arrow":
        again = Embeddings.from_arrow(items.to_arrow())
    else:
        again = Embeddings.from_pandas(items.to_pandas())
    np.testing.assert_array_equal(again.vectors, items.vectors)
    assert again.ids == items.ids
    if way != "pandas":  # which drops the metadata
        assert again.provenance == items.provenance
        assert (again.labels is None) == (labels is None)
    if again.labels is not None and labels is not None:
        assert again.labels.tolist() == list(labels)


@pytest.mark.parametrize(
    ("columns", "ids", "labels"),
    [
        ({"embedding": [[0.0, 1.0], [1.0, 0.0]]}, ["0", "1"], None),
        ({"Path": ["a", "b"], "features": [[0, 1], [1, 0]], "class": ["y", "x"]}, ["a", "b"],
            [1, 0]),
        ({"any": [[0.0, 1.0], [1.0, 0.0]], "label": [3, None], "id": [7, 8]}, ["7", "8"], [3, -1]),
    ],
)  # fmt: skip
def test_tables_of_others_are_read(columns, ids, labels, tmp_path):
    parquet.write_table(pa.table(columns), tmp_path / "v.parquet")
    found = Embeddings.load(tmp_path / "v.parquet")
    assert found.ids == ids
    assert found.vectors.tolist() == [[0, 1], [1, 0]]
    assert (None if found.labels is None else found.labels.tolist()) == labels


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"a": [1, 2]}, "the columns are: a"),
        ({"a": [[1.0], [2.0]], "b": [[1.0], [2.0]]}, "a column named vector"),
        ({"vector": [[1.0], [2.0, 3.0]]}, "differ in width"),
        ({"vector": [[1.0], None]}, "1 rows have no vector"),
        ({"vector": [[1.0], [float("nan")]]}, "not finite"),
        ({"vector": [[1.0], [2.0]], "id": ["a", None]}, "row 1 has no id"),
    ],
)
def test_tables_without_vectors_are_refused(columns, said, tmp_path):
    parquet.write_table(pa.table(columns), tmp_path / "v.parquet")
    with pytest.raises(DataError, match=said):
        Embeddings.load(tmp_path / "v.parquet")


def test_a_damaged_or_missing_file_is_an_error_in_words(tmp_path):
    (tmp_path / "v.parquet").write_bytes(b"PAR1 nothing")
    for name in ("v.parquet", "missing.parquet"):
        with pytest.raises(DataError, match=name):
            Embeddings.load(tmp_path / name)


@pytest.mark.parametrize("name", ["x.csv", "x.pt", "x.parquet.gz", "x.npy", "x.PARQUET"])
def test_unknown_endings_are_refused_before_any_work(name, tmp_path, monkeypatch):
    monkeypatch.setattr("tellapart.training.loading.open_subject", None)
    with pytest.raises(DataError, match="cannot write"):
        api.embed("timm/resnet10t", data="digits", out=tmp_path / name)
    assert not (tmp_path / name).exists()


def test_names_of_folders_may_have_a_dot(tmp_path):
    Embeddings(np.eye(2), ["a", "b"]).save(tmp_path / "v1.5")
    assert Embeddings.load(tmp_path / "v1.5").ids == ["a", "b"]


def test_eval_search_and_report_open_a_parquet_file(made, tmp_path, capsys):
    cli.main(["eval", str(made / "v.parquet"), "--out", str(tmp_path / "eval.json"), "--json"])
    assert json.loads(capsys.readouterr().out)["verdict"]
    one = Embeddings.load(made / "v.parquet").ids[0]
    found = api.search(made / "v.parquet", [one], k=3)
    assert found[0][0]["label"] in {str(i) for i in range(10)}
    assert api.report(made / "v.parquet", out=tmp_path / "r.html").bytes > 1000
    assert open_collection(made / "v.parquet").source.classes == [str(i) for i in range(10)]


def test_a_map_adds_the_columns_of_embedding_atlas(made, tmp_path):
    out = tmp_path / "map.parquet"
    api.embed(made / "run", out=out, map="pca")
    table = parquet.read_table(out)
    assert table.column_names[-3:] == ["x", "y", "neighbours"]
    first = table.column("neighbours")[0].as_py()
    vectors = Embeddings.load(out).vectors
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    wanted = 1 - unit @ unit[0]
    wanted[0] = np.inf
    assert first["ids"][0] == int(wanted.argmin())
    np.testing.assert_allclose(first["distances"][0], wanted.min(), atol=1e-5)
    with pytest.raises(ConfigError, match="--map goes with"):
        api.embed(made / "run", out=tmp_path / "v.npz", map="pca")


@pytest.mark.parametrize("package", ["pyarrow", "pandas"])
def test_a_missing_package_is_named(package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=r"tellapart\[tables\]"):
        Embeddings(np.eye(2), ["a", "b"]).to_pandas()
