"""Sentences: what is read and left out, views word by word, encoders, SimCSE against a loop, and the whole way."""

from __future__ import annotations

import json
import math
import sys

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from torch.nn import functional as F

import tellapart as ta
from tellapart import encoders, losses, objectives
from tellapart.data import kind_of, open_source
from tellapart.data.pairs import open_pairs
from tellapart.encoders import synonyms, text
from tellapart.errors import ConfigError, DataError, MissingExtraError
from tellapart.evaluation import sentences
from tellapart.objectives import Batch, SimCSEOptions
from tellapart.training.trainer import Trainer
from tellapart.views.text import TextViews

pytest.importorskip("tokenizers")
WORDS = ["the", "a", "red", "green", "blue", "cat", "dog", "bird", "sees", "likes", "near", "big", "small", "house"]
WORDS += ["tree", "and", "runs", "sleeps"]
SMALL = {"width": 32, "layers": 1, "vocabulary": 400, "dim": 16, "threads": 1, "batch_size": 16}


def _random(seed=0):
    return torch.Generator().manual_seed(seed)


def _sentences(n=80, seed=0):
    random = np.random.default_rng(seed)
    return [" ".join(random.choice(WORDS, random.integers(4, 9))) + f" {i}" for i in range(n)]


@pytest.fixture
def lines(tmp_path):
    path = tmp_path / "sentences.txt"
    path.write_text("\n".join(_sentences()) + "\n", encoding="utf-8")
    return path


def _encoder(name="small-transformer", **given):
    shared = {"texts": _sentences(), "width": 32, "layers": 2, "vocabulary": 400, "dim": 16}
    return text.build(name, seed=0, **(shared | given))


# reading --------------------------------------------------------------------------------------------------------------


def test_lines_are_sentences_and_unusable_ones_are_listed(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("one sentence\n\nzwei Sätze 😀\nשלום עולם\n" + "x" * 100_000 + "\n", encoding="utf-8")
    assert kind_of(str(path)) == "text"
    source = open_source(str(path))
    assert source.ids == ["1", "3", "4"]
    assert source.text(1) == "zwei Sätze 😀"
    assert [(s["path"], s["reason"].split()[0]) for s in source.skipped] == [
        ("a.txt:2", "empty"),
        ("a.txt:5", "100,000"),
    ]


def test_a_list_of_images_is_still_one(photos, tmp_path):
    path = photos.parent / "list.txt"
    path.write_text("\n".join(str(p) for p in sorted(photos.rglob("*.png"))))
    assert kind_of(str(path)) == "images"
    assert len(open_source(str(path))) == 24


def test_pairs_come_in_columns_with_or_without_a_heading(tmp_path):
    path = tmp_path / "pairs.tsv"
    path.write_text("sent0\tsent1\thard_neg\na cat\tan animal\ta stone\nonly one\nred\tcolour\tblue\n")
    source = open_source(str(path))
    assert (source.columns, source.ids) == (3, ["2", "4"])
    assert source.column(2) == ["a stone", "blue"]
    assert "1 sentence(s)" in source.skipped[0]["reason"]
    other = tmp_path / "nli.csv"
    other.write_text('premise,hypothesis\n"a, b",c\nd,e\n')
    assert open_source(f"text:{other}").texts == [("a, b", "c"), ("d", "e")]


def test_documents_of_a_folder_have_its_folders_as_labels(tmp_path):
    for kind in ("news", "mail"):
        (tmp_path / kind).mkdir()
        for i in range(3):
            (tmp_path / kind / f"{i}.txt").write_text(f"{kind} number {i}\nsecond line")
    source = open_source(str(tmp_path))
    assert (source.kind, source.classes, source.text(0)) == ("text", ["mail", "news"], "mail number 0 second line")


def test_what_is_not_utf8_or_holds_nothing_is_an_error(tmp_path):
    (tmp_path / "a.txt").write_bytes("Grüße".encode("latin-1") + b"\nmore\n")
    with pytest.raises(DataError, match="not UTF-8"):
        open_source(str(tmp_path / "a.txt"))
    (tmp_path / "b.txt").write_text("one\n\n\n")
    with pytest.raises(DataError, match="1 usable sentence"):
        open_source(str(tmp_path / "b.txt"))


# views ----------------------------------------------------------------------------------------------------------------


def _batch(encoder, texts):
    source = open_like(texts)
    return encoder.prepared(source).read(torch.arange(len(texts)))


def open_like(texts):
    from tellapart.data import TextSource

    return TextSource(
        name="t", all_ids=[str(i) for i in range(len(texts))], all_labels=None, classes=(), parts={}, fingerprint="",
        texts=[(t,) for t in texts],
    )  # fmt: skip


def _said(encoder, view):
    """The words of each sentence of a view, special tokens left out."""
    return [
        encoder.tokenizer.decode(ids[mask].tolist()).split()
        for ids, mask in zip(view["ids"], view["mask"], strict=True)
    ]


def test_nothing_asked_is_the_sentence_itself():
    encoder = _encoder()
    batch = _batch(encoder, _sentences(6))
    view = TextViews()(batch, _random())
    assert TextViews().nothing
    assert all(torch.equal(view[k], batch[k]) for k in batch)


@pytest.mark.parametrize(
    ("views", "low", "high"),
    [
        (TextViews(word_deletion=0.5), 0.4, 0.6),
        (TextViews(span_deletion=0.5), 0.45, 0.6),
        (TextViews(crop=0.5), 0.45, 0.6),
        (TextViews(word_deletion=1.0), 0.0, 0.2),
    ],
)
def test_the_share_of_words_that_stays(views, low, high):
    encoder = _encoder(max_length=64)
    texts = [" ".join(WORDS[:16])] * 200
    batch = _batch(encoder, texts)
    view = views(batch, _random())
    said = _said(encoder, view)
    counts = np.array([len(s) for s in said])
    assert low <= counts.mean() / 16 <= high
    assert counts.min() >= 1
    first, last = batch["ids"][0, 0], batch["ids"][0, batch["mask"][0].sum() - 1]
    assert (view["ids"][:, 0] == first).all()  # the special tokens stay at both ends
    assert all(int(ids[mask][-1]) == int(last) for ids, mask in zip(view["ids"], view["mask"], strict=True))
    assert torch.equal(view["mask"], torch.arange(view["mask"].shape[1]) < view["mask"].sum(1)[:, None])
    assert len({tuple(s) for s in said}) > (1 if views.word_deletion < 1 else 0)


def test_stretches_are_contiguous_and_reordering_keeps_every_word():
    encoder = _encoder(max_length=64)
    words = ["the", "a", "red", "green", "blue", "cat", "dog", "bird", "sees", "likes"]
    batch = _batch(encoder, [" ".join(words)] * 60)
    for said in _said(encoder, TextViews(crop=0.4)(batch, _random())):
        start = words.index(said[0])
        assert said == words[start : start + 6]
    for said in _said(encoder, TextViews(span=4)(batch, _random())):
        start = words.index(said[0])
        assert 1 <= len(said) <= 4
        assert said == words[start : start + len(said)]
    moved = _said(encoder, TextViews(reorder=0.2)(batch, _random()))
    assert all(sorted(said) == sorted(words) for said in moved)
    assert sum(said != words for said in moved) == 60
    assert all(sum(a != b for a, b in zip(said, words, strict=True)) == 4 for said in moved)


def test_substitution_uses_the_table_and_cutoffs_act_on_embeddings():
    encoder = _encoder()
    table = synonyms.nearest(encoder, sorted(synonyms.whole_words(encoder.tokenizer.get_vocab()).values()))
    batch = _batch(encoder, ["cat dog bird"] * 50)
    view = TextViews(substitution=0.5, synonyms=table)(batch, _random())
    changed = view["ids"] != batch["ids"]
    assert 0.2 < float(changed[batch["word"] >= 0].float().mean()) < 0.8
    assert all(
        int(new) in table[int(old)].tolist()
        for old, new in zip(batch["ids"][changed], view["ids"][changed], strict=True)
    )
    cut = TextViews(token_cutoff=0.3, feature_cutoff=0.4, shuffle=1.0)(batch, _random())
    kept = text._kept_features(cut["seed"], cut["cut"], 1000)
    assert float(kept.mean()) == pytest.approx(0.6, abs=0.02)
    assert not torch.equal(kept[0], kept[1])
    assert sorted(cut["position"][0][cut["mask"][0]].tolist()) == list(range(int(cut["mask"][0].sum())))
    seen = encoder.eval().features(cut)
    assert not torch.allclose(seen, encoder.features(batch))


def test_wordnet_files_are_read(tmp_path):
    for kind in synonyms.KINDS:
        (tmp_path / f"data.{kind}").write_text("  1 licence text\n")
    (tmp_path / "data.noun").write_text("  1 licence\n00001740 03 n 02 cat 0 feline 0 001 @ 0 n 0000 | an animal\n")
    assert synonyms.synonyms(tmp_path) == {"cat": {"feline"}, "feline": {"cat"}}


def test_any_callable_is_a_further_view_and_views_are_a_function_of_the_generator():
    encoder = _encoder()
    batch = _batch(encoder, _sentences(6))
    views = TextViews(word_deletion=0.3, change=lambda view, generator: view | {"seen": torch.ones(6)})
    first, again = views(batch, _random(3)), views(batch, _random(3))
    assert "seen" in first
    assert all(torch.equal(first[k], again[k]) for k in first)
    with pytest.raises(ConfigError, match="--word-deletion"):
        TextViews(word_deletion=1.5)


# encoders -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "pooler"), [("bag-of-tokens", "mean"), *(("small-transformer", p) for p in ("cls", "mean", "first-last"))]
)
def test_a_sentence_does_not_depend_on_its_batch(name, pooler):
    encoder = _encoder(name, pooler=pooler).eval()
    alone, long = ["the cat sees"], ["the cat sees", " ".join(WORDS)]
    torch.testing.assert_close(
        encoder.features(_batch(encoder, alone))[0], encoder.features(_batch(encoder, long))[0], atol=1e-5, rtol=0
    )


def test_any_script_is_written_and_read_again():
    encoder = _encoder(max_length=200)
    for said in ("emoji 😀🎉", "שלום עולם", "日本語のテキスト"):
        ids, words = encoder.encode([said])[0]
        assert encoder.tokenizer.decode(ids).strip() == said
        assert words[0] == -1


def test_an_encoder_is_built_again_from_its_description():
    encoder = _encoder().eval()
    again = encoders.rebuild(json.loads(json.dumps(encoder.description)), seed=5)
    again.load_state_dict(encoder.state_dict())
    batch = _batch(encoder, _sentences(4))
    assert torch.equal(encoder(batch), again.eval()(_batch(again, _sentences(4))))


def test_a_transformers_model_without_pooler_or_pad_token(tmp_path):
    transformers = pytest.importorskip("transformers")
    words = text.train_tokenizer(_sentences(), 400)
    config = transformers.BertConfig(
        vocab_size=words.get_vocab_size(), hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=64, max_position_embeddings=64,
    )  # fmt: skip
    folder = tmp_path / "model"
    transformers.BertModel(config, add_pooling_layer=False).save_pretrained(folder)
    transformers.PreTrainedTokenizerFast(tokenizer_object=words).save_pretrained(folder)
    encoder = text.build(str(folder), seed=0, dropout=0.2, pooler="first-last", head_kind="none")
    dropped = {m.p for m in encoder.modules() if isinstance(m, torch.nn.Dropout)}
    assert dropped == {0.2}
    batch = _batch(encoder.eval(), ["the cat", "the dog sees a bird"])
    theirs = encoder.body.model(batch["ids"], attention_mask=batch["mask"].long(), output_hidden_states=True)
    hidden, mask = theirs.hidden_states, batch["mask"][:, :, None]
    wanted = sum((h * mask).sum(1) / mask.sum(1) for h in (hidden[1], hidden[-1])) / 2
    torch.testing.assert_close(encoder.features(batch), wanted)
    path = tmp_path / "s.txt"
    path.write_text("\n".join(_sentences(40)))
    ta.train("simcse", data=str(path), out=tmp_path / "run", encoder=str(folder), steps=2, batch_size=8, threads=1)
    result = ta.evaluate(folder, data=str(path), out=tmp_path / "eval.json")
    assert "its features" in result["geometry"]
    with pytest.raises(ConfigError, match="not a transformers encoder"):
        text.build(str(tmp_path / "nothing"), seed=0)


# simcse ---------------------------------------------------------------------------------------------------------------


def _rows(n=6, seed=0):
    return F.normalize(torch.randn(n, 8, generator=_random(seed), dtype=torch.float64), dim=1)


@pytest.mark.parametrize("weight", [0.0, 0.7, -1.0])
def test_hard_negatives_are_the_papers_equation(weight):
    a, b, h = (_rows(seed=i) for i in range(3))
    tau, total = 0.3, []
    for i in range(len(a)):
        below = sum(math.exp(float(a[i] @ b[j]) / tau) for j in range(len(a)))
        below += sum(math.exp(float(a[i] @ h[j]) / tau + (weight if i == j else 0)) for j in range(len(a)))
        total.append(-float(a[i] @ b[i]) / tau + math.log(below))
    found = losses.info_nce_hard(a, b, h, temperature=tau, weight=weight)
    assert float(found) == pytest.approx(np.mean(total))
    assert torch.autograd.gradcheck(
        lambda *z: losses.info_nce_hard(*z, temperature=tau, weight=weight),
        [z.clone().requires_grad_() for z in (a, b, h)],
    )


def _simcse(options, encoder, source):
    objective = objectives.build("simcse", options, 0)
    objective.attach(encoder, source)
    return objective


def test_two_passes_differ_by_dropout_unless_the_mask_is_kept():
    encoder = _encoder(dropout=0.3).train()
    source = encoder.prepared(open_like(_sentences(8)))
    view = source.read(torch.arange(8))
    batch = Batch([view, view], torch.arange(8))
    objective = _simcse(SimCSEOptions(), encoder, source)
    found = objective.embed(encoder, batch)
    assert not torch.allclose(found["z"], found["z1"])
    same = _simcse(SimCSEOptions(same_mask=True), encoder, source).embed(encoder, batch)
    assert torch.equal(same["z"], same["z1"])
    assert float(objective.loss({"z": found["z"] * 0, "z1": found["z"] * 0}, batch, _random()).loss) == pytest.approx(
        objective.chance(8)
    )


def test_hidden_tokens_are_named_and_reach_the_encoder():
    encoder = _encoder().train()
    source = encoder.prepared(open_like(_sentences(8)))
    view = source.read(torch.arange(8))
    objective = _simcse(SimCSEOptions(mlm=0.1), encoder, source)
    embedded = objective.embed(encoder, Batch([view, view], torch.arange(8)))
    assert embedded["mlm"].shape == (8,)
    assert float(embedded["mlm"].mean()) > 1
    objective.loss(embedded, Batch([view, view], torch.arange(8)), _random()).loss.backward()
    assert float(objective.vocabulary[0].weight.grad.abs().sum()) > 0


def test_simcse_wants_sentences(digits):
    with pytest.raises(ConfigError, match="has no settings for images"):
        ta.train("simcse", data="digits", out="nowhere")


# scores ---------------------------------------------------------------------------------------------------------------


def test_spearman_is_scipys_with_ties():
    random = np.random.default_rng(0)
    a, b = random.integers(0, 5, 50).astype(float), random.integers(0, 9, 50).astype(float)
    assert sentences.spearman(a, b) == pytest.approx(spearmanr(a, b).statistic)
    assert sentences.spearman(np.ones(4), b[:4]) == 0.0


def test_layouts_of_sts_files(tmp_path):
    (tmp_path / "plain.tsv").write_text("5.0\ta cat\ta feline\n1\tx\ty\n2.5\tp\tq\n\tno\tscore\n")
    pairs = open_pairs(str(tmp_path / "plain.tsv"))
    assert (pairs.score, len(pairs.skipped), pairs.texts[:2]) == ([5.0, 1.0, 2.5], 1, ["a cat", "a feline"])
    row = "main-news\tMSRpar\t2012\t{}\t{}\ta b\tc d {}"
    (tmp_path / "stsb.csv").write_text("\n".join(row.format(i, i / 2, i) for i in range(4)))
    assert open_pairs(str(tmp_path / "stsb.csv")).score == [0.0, 0.5, 1.0, 1.5]
    heading = "pair_ID\tsentence_A\tsentence_B\trelatedness_score\tentailment_judgment\n"
    (tmp_path / "SICK.txt").write_text(heading + "".join(f"{i}\tu {i}\tv {i}\t{i}\tNEUTRAL\n" for i in range(3)))
    assert open_pairs(str(tmp_path / "SICK.txt")).score == [0.0, 1.0, 2.0]
    folder = tmp_path / "STS12"
    folder.mkdir()
    for name in ("A", "B"):
        (folder / f"STS.input.{name}.txt").write_text(f"one {name}\ttwo {name}\nthree\tfour\n")
        (folder / f"STS.gs.{name}.txt").write_text("4\n\n" if name == "A" else "3\n2\n")
    together = open_pairs(str(folder))
    assert (together.subset, together.score, len(together.skipped)) == (["A", "B", "B"], [4.0, 3.0, 2.0], 1)
    with pytest.raises(DataError, match="does not exist"):
        open_pairs(str(tmp_path / "no.tsv"))
    (tmp_path / "two.tsv").write_text("1\ta\tb\n2\tc\td\n")
    with pytest.raises(DataError, match="3 or more"):
        open_pairs(str(tmp_path / "two.tsv"))


@pytest.mark.parametrize(("name", "count"), [("lee", 1225), ("wordsim353", 353), ("simlex999", 999)])
def test_sets_inside_gensim(name, count):
    pytest.importorskip("gensim")
    assert len(open_pairs(name)) == count


def test_partners_are_ranked_and_equal_vectors_gain_nothing():
    vectors = np.eye(20, dtype=np.float32)
    assert sentences.partner(vectors, vectors)["R@1"].mean() == 1
    same = np.ones((20, 4), np.float32)
    assert sentences.partner(same, same)["R@1"].mean() == 0
    assert sentences.partner(same, same)["MRR"].mean() == pytest.approx(1 / 10.5)


# the whole way --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["simcse", "moco", "simclr"])
def test_train_sentences_judge_embed_and_search_them(lines, tmp_path, method):
    options = {"queue": 32} if method == "moco" else {}
    out = tmp_path / "run"
    ta.train(method, data=str(lines), out=out, steps=6, objective=options, log_every=2, **SMALL)
    again = tmp_path / "again"
    ta.train(method, data=str(lines), out=again, steps=6, objective=options, log_every=2, **SMALL)
    first, second = (p / "encoder" / "model.safetensors" for p in (out, again))
    assert first.read_bytes() == second.read_bytes()
    scored = tmp_path / "sts.tsv"
    scored.write_text(
        "".join(f"{i % 6}\t{a}\t{b}\n" for i, (a, b) in enumerate(zip(_sentences(30), _sentences(30, 1), strict=True)))
    )
    result = ta.evaluate(out, data=f"sts:{scored}")
    assert {"bag of words", "TF-IDF", "random init", "trained features"} <= result["sts"].keys()
    assert "Spearman" in result["verdict"]
    assert "neither partners nor labels" in ta.evaluate(out)["verdict"]
    assert ta.embed(out, out=tmp_path / "e.npz").vectors.shape == (80, 32)
    assert ta.search(out, ["3"], k=2)[0][0]["id"] != "3"
    assert ta.search(out, ["the red cat sleeps"], k=2)[0][0]["similarity"] <= 1


def test_pairs_with_hard_negatives_are_trained_on_and_judged(tmp_path):
    path = tmp_path / "pairs.tsv"
    rows = zip(_sentences(40), _sentences(40, 1), _sentences(40, 2), strict=True)
    path.write_text("".join("\t".join(row) + "\n" for row in rows))
    out = tmp_path / "run"
    trained = ta.train("simcse", data=str(path), out=out, steps=10, micro_batch=8, log_every=2, **SMALL)
    assert trained.steps == 10
    result = ta.evaluate(out)
    assert {"R@1", "R@5", "R@10", "MRR"} == result["partners"]["trained features"].keys()


def test_classes_of_documents_are_judged_as_those_of_images(tmp_path):
    random = np.random.default_rng(0)
    for kind, words in (("animals", ["cat", "dog", "bird"]), ("colours", ["red", "green", "blue"])):
        (tmp_path / "docs" / kind).mkdir(parents=True)
        for i in range(20):
            (tmp_path / "docs" / kind / f"{i}.txt").write_text(" ".join(random.choice(words, 8)) + f" {i}")
    out = tmp_path / "run"
    ta.train("simcse", data=str(tmp_path / "docs"), out=out, steps=3, **SMALL)
    result = ta.evaluate(out)
    assert result["scores"]["TF-IDF"]["knn@1"]["value"] > 0.9


def test_a_missing_package_is_named_with_its_command(lines, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'tellapart\[text\]'"):
        ta.train("simcse", data=str(lines), out=tmp_path / "run", steps=1, **SMALL)
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'tellapart\[text\]'"):
        ta.train("simcse", data=str(lines), out=tmp_path / "run", steps=1, encoder="some/model", **SMALL)


def test_pieces_of_a_batch_give_its_gradient_dropout_included(lines):
    """Each piece's dropout is drawn anew for the pass that sends the gradient on, and must be the same."""
    source = open_source(str(lines))
    states = []
    for micro in (None, 8):
        config = ta.presets.simcse_text()
        config = type(config)(
            **{
                **vars(config),
                **SMALL,
                "dropout": 0.0,
                "micro_batch": micro,
                "steps": 2,
                "lr": 1e-2,
                "precision": "float32",
            }
        )
        trainer = Trainer("simcse", config, source)
        for _ in trainer:
            pass
        states.append(trainer.encoder.state_dict())
    for name, value in states[0].items():
        torch.testing.assert_close(states[1][name], value, atol=2e-4, rtol=1e-3)
    replayed = Trainer("simcse", type(config)(**{**vars(config), "dropout": 0.5}), source)
    assert all(math.isfinite(step.loss) for step in replayed)


def test_rows_of_other_processes_complete_the_sum():
    a, b, h = (_rows(8, seed=i) for i in range(3))
    whole = losses.info_nce_hard(a, b, h)
    halves = [
        losses.info_nce_hard(a[s], b[s], h[s], others=torch.cat([b[o], h[o]]))
        for s, o in ((slice(0, 4), slice(4, 8)), (slice(4, 8), slice(0, 4)))
    ]
    torch.testing.assert_close(sum(halves) / 2, whole)


def test_pairs_are_judged_on_those_that_were_not_trained_on(tmp_path):
    path = tmp_path / "pairs.tsv"
    path.write_text("".join(f"{a}\t{b}\n" for a, b in zip(_sentences(60), _sentences(60, 1), strict=True)))
    source = open_source(str(path))
    assert not set(source.splits["train"]) & set(source.splits["test"])
    out = tmp_path / "run"
    ta.train("simcse", data=str(path), out=out, steps=2, **SMALL)
    assert f"Among {len(source.splits['test'])} sentences" in ta.evaluate(out)["verdict"]
    assert ta.search(out, ["a sentence " + "that is long " * 40], k=2)
    with pytest.raises(ConfigError, match="pairs are for simcse"):
        ta.train("simclr", data=str(path), out=tmp_path / "no", steps=1, **SMALL)


def test_files_are_taken_for_what_most_of_them_are(tmp_path, photos):
    path = tmp_path / "notes.txt"
    path.write_text("\n".join([*_sentences(20), "see report.csv", "and picture.png"]))
    assert kind_of(str(path)) == "text"
    for file in photos.rglob("*.png"):
        file.with_suffix(".txt").write_text("0 0.5 0.5 1 1")
        file.with_name(file.stem + "_b.txt").write_text("0 0.5 0.5 1 1")
    assert kind_of(str(photos)) == "images"


def test_a_checkpoint_is_watched_through_words_left_out(lines, tmp_path):
    ta.train("simcse", data=str(lines), out=tmp_path / "run", steps=6, save_every=3, **SMALL)
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["features_alignment"] > 0


def test_moco_with_batchnorm_in_its_head_shuffles_sentences(lines, tmp_path):
    trained = ta.train(
        "moco", data=str(lines), out=tmp_path / "run", steps=2, head="mlp-bn", objective={"queue": 32}, **SMALL
    )
    assert trained.steps == 2


def test_sts_files_with_odd_separators_scores_and_signs(lines, tmp_path):
    folder = tmp_path / "STS13"
    folder.mkdir()
    (folder / "STS.input.a.txt").write_text("one\u2028more\ttwo\nthree\tfour\nfive\tsix\nseven\teight\n")
    (folder / "STS.gs.a.txt").write_text("1\n2\nnan\n4\n")
    assert open_pairs(str(folder)).score == [1.0, 2.0, 4.0]
    (folder / "STS.gs.a.txt").write_text("1\n2\n")
    with pytest.raises(DataError, match="4 lines and its scores 2"):
        open_pairs(str(folder))
    from tellapart.evaluation.baselines import BagOfWords

    assert BagOfWords(["😀", "🎉"])(["😀"]).shape == (1, 1)


def test_help_needs_no_data(capsys):
    from tellapart import cli

    with pytest.raises(SystemExit) as stopped:
        cli.main(["train", "simcse", "--help"])
    assert stopped.value.code == 0
    assert "--word-deletion" in capsys.readouterr().out
    with pytest.raises(ConfigError, match="bag-of-tokens"):
        _encoder("bag-of-tokens", pooler="cls")
