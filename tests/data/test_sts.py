"""Sentences by meaning: Spearman, the layouts of STS files, sets inside gensim, partners."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr

from tellapart.data.sts import open_pairs
from tellapart.errors import DataError
from tellapart.evaluation import sentence_similarity

pytest.importorskip("tokenizers")
SMALL = {"width": 32, "layers": 1, "vocabulary": 400, "dim": 16, "threads": 1, "batch_size": 16}


def test_spearman_is_scipys_with_ties():
    random = np.random.default_rng(0)
    a, b = random.integers(0, 5, 50).astype(float), random.integers(0, 9, 50).astype(float)
    assert sentence_similarity.spearman(a, b) == pytest.approx(spearmanr(a, b).statistic)
    assert sentence_similarity.spearman(np.ones(4), b[:4]) == 0.0


def test_layouts_of_sts_files(tmp_path):
    (tmp_path / "plain.tsv").write_text("5.0\ta cat\ta feline\n1\tx\ty\n2.5\tp\tq\n\tno\tscore\n")
    pairs = open_pairs(str(tmp_path / "plain.tsv"))
    assert (pairs.score, len(pairs.skipped), pairs.texts[:2]) == (
        [5.0, 1.0, 2.5],
        1,
        ["a cat", "a feline"],
    )
    row = "main-news\tMSRpar\t2012\t{}\t{}\ta b\tc d {}"
    (tmp_path / "stsb.csv").write_text("\n".join(row.format(i, i / 2, i) for i in range(4)))
    assert open_pairs(str(tmp_path / "stsb.csv")).score == [0.0, 0.5, 1.0, 1.5]
    heading = "pair_ID\tsentence_A\tsentence_B\trelatedness_score\tentailment_judgment\n"
    (tmp_path / "SICK.txt").write_text(
        heading + "".join(f"{i}\tu {i}\tv {i}\t{i}\tNEUTRAL\n" for i in range(3))
    )
    assert open_pairs(str(tmp_path / "SICK.txt")).score == [0.0, 1.0, 2.0]
    folder = tmp_path / "STS12"
    folder.mkdir()
    for name in ("A", "B"):
        (folder / f"STS.input.{name}.txt").write_text(f"one {name}\ttwo {name}\nthree\tfour\n")
        (folder / f"STS.gs.{name}.txt").write_text("4\n\n" if name == "A" else "3\n2\n")
    together = open_pairs(str(folder))
    assert (together.subset, together.score, len(together.skipped)) == (
        ["A", "B", "B"],
        [4.0, 3.0, 2.0],
        1,
    )
    with pytest.raises(DataError, match="does not exist"):
        open_pairs(str(tmp_path / "no.tsv"))
    (tmp_path / "two.tsv").write_text("1\ta\tb\n2\tc\td\n")
    with pytest.raises(DataError, match="3 or more"):
        open_pairs(str(tmp_path / "two.tsv"))


@pytest.mark.parametrize(
    ("name", "count"), [("lee", 1225), ("wordsim353", 353), ("simlex999", 999)]
)
def test_sets_inside_gensim(name, count):
    pytest.importorskip("gensim")
    assert len(open_pairs(name)) == count


def test_partners_are_ranked_and_equal_vectors_gain_nothing():
    vectors = np.eye(20, dtype=np.float32)
    assert sentence_similarity.partner(vectors, vectors)["R@1"].mean() == 1
    same = np.ones((20, 4), np.float32)
    assert sentence_similarity.partner(same, same)["R@1"].mean() == 0
    assert sentence_similarity.partner(same, same)["MRR"].mean() == pytest.approx(1 / 10.5)


def test_sts_files_with_odd_separators_scores_and_signs(lines, tmp_path):
    folder = tmp_path / "STS13"
    folder.mkdir()
    (folder / "STS.input.a.txt").write_text(
        "one\u2028more\ttwo\nthree\tfour\nfive\tsix\nseven\teight\n"
    )
    (folder / "STS.gs.a.txt").write_text("1\n2\nnan\n4\n")
    assert open_pairs(str(folder)).score == [1.0, 2.0, 4.0]
    (folder / "STS.gs.a.txt").write_text("1\n2\n")
    with pytest.raises(DataError, match="4 lines and its scores 2"):
        open_pairs(str(folder))
    from tellapart.evaluation.baselines import BagOfWords

    assert BagOfWords(["😀", "🎉"])(["😀"]).shape == (1, 1)
