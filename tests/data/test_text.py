"""Sentences: what is read and left out, views word by word, encoders, and the whole way."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
import torch
from samples import WORDS, open_like, seeded, small_text_encoder, some_sentences

import tellapart as ta
from tellapart import encoders
from tellapart.data import kind_of, open_source
from tellapart.encoders import synonyms, text
from tellapart.errors import ConfigError, DataError, MissingExtraError
from tellapart.views.text import TextViews

pytest.importorskip("tokenizers")
SMALL = {"width": 32, "layers": 1, "vocabulary": 400, "dim": 16, "threads": 1, "batch_size": 16}


# reading ------------------------------------------------------------------------------------------


def test_lines_are_sentences_and_unusable_ones_are_listed(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text(
        "one sentence\n\nzwei Sätze 😀\nשלום עולם\n" + "x" * 100_000 + "\n", encoding="utf-8"
    )
    assert kind_of(str(path)) == "text"
    source = open_source(str(path))
    assert source.ids == ["1", "3", "4"]
    assert source.text(1) == "zwei Sätze 😀"
    assert [(s["path"], s["reason"].split()[0]) for s in source.skipped] == [
        ("a.txt:2", "empty"),
        ("a.txt:5", "too"),
    ]


def test_a_list_of_images_is_still_one(photos, tmp_path):
    path = photos.parent / "list.txt"
    path.write_text("\n".join(str(p) for p in sorted(photos.rglob("*.png"))))
    assert kind_of(str(path)) == "images"
    assert len(open_source(str(path))) == 24


def test_pairs_come_in_columns_with_or_without_a_heading(tmp_path):
    path = tmp_path / "pairs.tsv"
    path.write_text(
        "sent0\tsent1\thard_neg\na cat\tan animal\ta stone\nonly one\nred\tcolour\tblue\n"
    )
    source = open_source(str(path))
    assert (source.columns, source.ids) == (3, ["2", "4"])
    assert source.column(2) == ["a stone", "blue"]
    assert "1 in it, 3 are needed" in source.skipped[0]["reason"]
    other = tmp_path / "nli.csv"
    other.write_text('premise,hypothesis\n"a, b",c\nd,e\n')
    assert open_source(f"text:{other}").texts == [("a, b", "c"), ("d", "e")]


def test_documents_of_a_folder_have_its_folders_as_labels(tmp_path):
    for kind in ("news", "mail"):
        (tmp_path / kind).mkdir()
        for i in range(3):
            (tmp_path / kind / f"{i}.txt").write_text(f"{kind} number {i}\nsecond line")
    source = open_source(str(tmp_path))
    assert (source.kind, source.classes, source.text(0)) == (
        "text",
        ["mail", "news"],
        "mail number 0 second line",
    )


def test_what_is_not_utf8_or_holds_nothing_is_an_error(tmp_path):
    (tmp_path / "a.txt").write_bytes("Grüße".encode("latin-1") + b"\nmore\n")
    with pytest.raises(DataError, match="not UTF-8"):
        open_source(str(tmp_path / "a.txt"))
    (tmp_path / "b.txt").write_text("one\n\n\n")
    with pytest.raises(DataError, match="1 usable sentence"):
        open_source(str(tmp_path / "b.txt"))


# views --------------------------------------------------------------------------------------------


def _batch(encoder, texts):
    source = open_like(texts)
    return encoder.prepared(source).read(torch.arange(len(texts)))


def _said(encoder, view):
    """The words of each sentence of a view, special tokens left out."""
    return [
        encoder.tokenizer.decode(ids[mask].tolist()).split()
        for ids, mask in zip(view["ids"], view["mask"], strict=True)
    ]


def test_nothing_asked_is_the_sentence_itself():
    encoder = small_text_encoder()
    batch = _batch(encoder, some_sentences(6))
    view = TextViews()(batch, seeded())
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
    encoder = small_text_encoder(max_length=64)
    texts = [" ".join(WORDS[:16])] * 200
    batch = _batch(encoder, texts)
    view = views(batch, seeded())
    said = _said(encoder, view)
    counts = np.array([len(s) for s in said])
    assert low <= counts.mean() / 16 <= high
    assert counts.min() >= 1
    first, last = batch["ids"][0, 0], batch["ids"][0, batch["mask"][0].sum() - 1]
    assert (view["ids"][:, 0] == first).all()  # the special tokens stay at both ends
    assert all(
        int(ids[mask][-1]) == int(last) for ids, mask in zip(view["ids"], view["mask"], strict=True)
    )
    assert torch.equal(
        view["mask"], torch.arange(view["mask"].shape[1]) < view["mask"].sum(1)[:, None]
    )
    assert len({tuple(s) for s in said}) > (1 if views.word_deletion < 1 else 0)


def test_stretches_are_contiguous_and_reordering_keeps_every_word():
    encoder = small_text_encoder(max_length=64)
    words = ["the", "a", "red", "green", "blue", "cat", "dog", "bird", "sees", "likes"]
    batch = _batch(encoder, [" ".join(words)] * 60)
    for said in _said(encoder, TextViews(crop=0.4)(batch, seeded())):
        start = words.index(said[0])
        assert said == words[start : start + 6]
    for said in _said(encoder, TextViews(span=4)(batch, seeded())):
        start = words.index(said[0])
        assert 1 <= len(said) <= 4
        assert said == words[start : start + len(said)]
    moved = _said(encoder, TextViews(reorder=0.2)(batch, seeded()))
    assert all(sorted(said) == sorted(words) for said in moved)
    assert sum(said != words for said in moved) == 60
    assert all(sum(a != b for a, b in zip(said, words, strict=True)) == 4 for said in moved)


def test_substitution_uses_the_table_and_cutoffs_act_on_embeddings():
    encoder = small_text_encoder()
    table = synonyms.nearest(
        encoder, sorted(synonyms.whole_words(encoder.tokenizer.get_vocab()).values())
    )
    batch = _batch(encoder, ["cat dog bird"] * 50)
    view = TextViews(substitution=0.5, synonyms=table)(batch, seeded())
    changed = view["ids"] != batch["ids"]
    assert 0.2 < float(changed[batch["word"] >= 0].float().mean()) < 0.8
    assert all(
        int(new) in table[int(old)].tolist()
        for old, new in zip(batch["ids"][changed], view["ids"][changed], strict=True)
    )
    cut = TextViews(token_cutoff=0.3, feature_cutoff=0.4, shuffle=1.0)(batch, seeded())
    kept = text._kept_features(cut["seed"], cut["cut"], 1000)
    assert float(kept.mean()) == pytest.approx(0.6, abs=0.02)
    assert not torch.equal(kept[0], kept[1])
    assert sorted(cut["position"][0][cut["mask"][0]].tolist()) == list(
        range(int(cut["mask"][0].sum()))
    )
    seen = encoder.eval().features(cut)
    assert not torch.allclose(seen, encoder.features(batch))


def test_wordnet_files_are_read(tmp_path):
    for kind in synonyms.KINDS:
        (tmp_path / f"data.{kind}").write_text("  1 licence text\n")
    (tmp_path / "data.noun").write_text(
        "  1 licence\n00001740 03 n 02 cat 0 feline 0 001 @ 0 n 0000 | an animal\n"
    )
    assert synonyms.synonyms(tmp_path) == {"cat": {"feline"}, "feline": {"cat"}}


def test_any_callable_is_a_further_view_and_views_are_a_function_of_the_generator():
    encoder = small_text_encoder()
    batch = _batch(encoder, some_sentences(6))
    views = TextViews(
        word_deletion=0.3, change=lambda view, generator: view | {"seen": torch.ones(6)}
    )
    first, again = views(batch, seeded(3)), views(batch, seeded(3))
    assert "seen" in first
    assert all(torch.equal(first[k], again[k]) for k in first)
    with pytest.raises(ConfigError, match="--word-deletion"):
        TextViews(word_deletion=1.5)


# encoders -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "pooler"),
    [("bag-of-tokens", "mean"), *(("small-transformer", p) for p in ("cls", "mean", "first-last"))],
)
def test_a_sentence_does_not_depend_on_its_batch(name, pooler):
    encoder = small_text_encoder(name, pooler=pooler).eval()
    alone, long = ["the cat sees"], ["the cat sees", " ".join(WORDS)]
    torch.testing.assert_close(
        encoder.features(_batch(encoder, alone))[0],
        encoder.features(_batch(encoder, long))[0],
        atol=1e-5,
        rtol=0,
    )


def test_any_script_is_written_and_read_again():
    encoder = small_text_encoder(max_length=200)
    for said in ("emoji 😀🎉", "שלום עולם", "日本語のテキスト"):
        ids, words = encoder.encode([said])[0]
        assert encoder.tokenizer.decode(ids).strip() == said
        assert words[0] == -1


def test_an_encoder_is_built_again_from_its_description():
    encoder = small_text_encoder().eval()
    again = encoders.rebuild(json.loads(json.dumps(encoder.description)), seed=5)
    again.load_state_dict(encoder.state_dict())
    batch = _batch(encoder, some_sentences(4))
    assert torch.equal(encoder(batch), again.eval()(_batch(again, some_sentences(4))))


def test_a_transformers_model_without_pooler_or_pad_token(tmp_path):
    transformers = pytest.importorskip("transformers")
    words = text.train_tokenizer(some_sentences(), 400)
    config = transformers.BertConfig(
        vocab_size=words.get_vocab_size(), hidden_size=32, num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64, max_position_embeddings=64,
    )  # fmt: skip
    folder = tmp_path / "model"
    transformers.BertModel(config, add_pooling_layer=False).save_pretrained(folder)
    transformers.PreTrainedTokenizerFast(tokenizer_object=words).save_pretrained(folder)
    encoder = text.build(str(folder), seed=0, dropout=0.2, pooler="first-last", head_kind="none")
    dropped = {m.p for m in encoder.modules() if isinstance(m, torch.nn.Dropout)}
    assert dropped == {0.2}
    batch = _batch(encoder.eval(), ["the cat", "the dog sees a bird"])
    theirs = encoder.body.model(
        batch["ids"], attention_mask=batch["mask"].long(), output_hidden_states=True
    )
    hidden, mask = theirs.hidden_states, batch["mask"][:, :, None]
    wanted = sum((h * mask).sum(1) / mask.sum(1) for h in (hidden[1], hidden[-1])) / 2
    torch.testing.assert_close(encoder.features(batch), wanted)
    path = tmp_path / "s.txt"
    path.write_text("\n".join(some_sentences(40)))
    ta.train(
        "simcse",
        data=str(path),
        out=tmp_path / "run",
        encoder=str(folder),
        steps=2,
        batch_size=8,
        threads=1,
    )
    result = ta.evaluate(folder, data=str(path), out=tmp_path / "eval.json")
    assert "its features" in result["geometry"]
    with pytest.raises(ConfigError, match="not a transformers encoder"):
        text.build(str(tmp_path / "nothing"), seed=0)


# the whole way ------------------------------------------------------------------------------------


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
        "".join(
            f"{i % 6}\t{a}\t{b}\n"
            for i, (a, b) in enumerate(zip(some_sentences(30), some_sentences(30, 1), strict=True))
        )
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
    rows = zip(some_sentences(40), some_sentences(40, 1), some_sentences(40, 2), strict=True)
    path.write_text("".join("\t".join(row) + "\n" for row in rows))
    out = tmp_path / "run"
    trained = ta.train(
        "simcse", data=str(path), out=out, steps=10, micro_batch=8, log_every=2, **SMALL
    )
    assert trained.steps == 10
    result = ta.evaluate(out)
    assert {"R@1", "R@5", "R@10", "MRR"} == result["partners"]["trained features"].keys()


def test_classes_of_documents_are_judged_as_those_of_images(tmp_path):
    random = np.random.default_rng(0)
    for kind, words in (("animals", ["cat", "dog", "bird"]), ("colours", ["red", "green", "blue"])):
        (tmp_path / "docs" / kind).mkdir(parents=True)
        for i in range(20):
            (tmp_path / "docs" / kind / f"{i}.txt").write_text(
                " ".join(random.choice(words, 8)) + f" {i}"
            )
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
        ta.train(
            "simcse", data=str(lines), out=tmp_path / "run", steps=1, encoder="some/model", **SMALL
        )


def test_pairs_are_judged_on_those_that_were_not_trained_on(tmp_path):
    path = tmp_path / "pairs.tsv"
    path.write_text(
        "".join(
            f"{a}\t{b}\n" for a, b in zip(some_sentences(60), some_sentences(60, 1), strict=True)
        )
    )
    source = open_source(str(path))
    assert not set(source.splits["train"]) & set(source.splits["test"])
    out = tmp_path / "run"
    ta.train("simcse", data=str(path), out=out, steps=2, **SMALL)
    assert f"among {len(source.splits['test'])} sentences" in ta.evaluate(out)["verdict"]
    assert ta.search(out, ["a sentence " + "that is long " * 40], k=2)
    with pytest.raises(ConfigError, match="requires single sentences"):
        ta.train("simclr", data=str(path), out=tmp_path / "no", steps=1, **SMALL)


def test_files_are_taken_for_what_most_of_them_are(tmp_path, photos):
    path = tmp_path / "notes.txt"
    path.write_text("\n".join([*some_sentences(20), "see report.csv", "and picture.png"]))
    assert kind_of(str(path)) == "text"
    for file in photos.rglob("*.png"):
        file.with_suffix(".txt").write_text("0 0.5 0.5 1 1")
        file.with_name(file.stem + "_b.txt").write_text("0 0.5 0.5 1 1")
    assert kind_of(str(photos)) == "images"


def test_a_checkpoint_is_watched_through_words_left_out(lines, tmp_path):
    ta.train("simcse", data=str(lines), out=tmp_path / "run", steps=6, save_every=3, **SMALL)
    rows = [
        json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    ]
    assert rows[-1]["features_alignment"] > 0


def test_moco_with_batchnorm_in_its_head_shuffles_sentences(lines, tmp_path):
    trained = ta.train(
        "moco",
        data=str(lines),
        out=tmp_path / "run",
        steps=2,
        head="mlp-bn",
        objective={"queue": 32},
        **SMALL,
    )
    assert trained.steps == 2


def test_help_needs_no_data(capsys):
    from tellapart import cli

    cli.main(["train", "simcse", "--help-all"])
    assert "--word-deletion" in capsys.readouterr().out
    with pytest.raises(ConfigError, match="bag-of-tokens"):
        small_text_encoder("bag-of-tokens", pooler="cls")


@pytest.mark.parametrize(
    "pair",
    [
        lambda i: (f"question {i} here", f"answer {i % 10} there"),  # FAQ: shared answers
        lambda i: (f"premise {i // 3}", f"hypothesis {i}"),  # NLI: shared premises
        lambda i: (f"sentence {i}", f"sentence {i + 1 - 4 * (i % 4 == 3)}"),  # duplicates: cycles
    ],
)
def test_pairs_that_share_a_sentence_stay_on_one_side(tmp_path, pair):
    lines = ["\t".join(pair(i)) for i in range(120)]
    (tmp_path / "p.tsv").write_text("\n".join(lines))
    source = open_source(str(tmp_path / "p.tsv"))
    sides = [
        {text for i in rows for text in source.texts[source.rows[i]]}
        for rows in source.splits.values()
    ]
    assert len(sides) == 2
    assert min(map(len, sides)) > 0
    assert not sides[0] & sides[1]


def test_one_hub_does_not_swallow_the_split(tmp_path):
    lines = [f"question {i}\t{'I do not know' if i % 3 else f'answer {i}'}" for i in range(90)]
    lines += [f"question {i}\tanswer {i} again" for i in range(90)]
    (tmp_path / "p.tsv").write_text("\n".join(lines))
    source = open_source(str(tmp_path / "p.tsv"))
    second = [{source.texts[source.rows[i]][1] for i in rows} for rows in source.splits.values()]
    assert not second[0] & second[1]
