"""Write docs/objectives/METHOD.md from docstrings, options, presets and recorded results.

`python scripts/objective_pages.py` writes them; `scripts/check` fails if a page is out of date.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
import sys
import textwrap
from pathlib import Path
from typing import Any

from tellapart.objectives import METHODS, OPTIONS, objective_class
from tellapart.runtime.options import arguments
from tellapart.training import presets

ROOT = Path(__file__).resolve().parent.parent
PAGES = ROOT / "docs" / "objectives"
SECTIONS = ("Formula", "When", "Good to know", "Chance", "Relations", "Published")
STUDIES = {
    "margin": """![Digits 4 and 9 at their places on a map](../images/margin_map.png)

`python studies/digit_map.py`: the digits 4 (blue) and 9 (red) in two dimensions, learned without
labels from each image's five nearest by pixels. On the map the five nearest training items name
the class of all 74 test items; on the two first principal components of the pixels, of 96.0 % (one
seed)."""
}
WIDTH = 100
SHOWN = {"knn@20": "kNN k = 20", "knn@200": "kNN k = 200", "logistic": "logistic regression"}


def main() -> None:
    """Write every page."""
    for method, text in pages().items():
        (PAGES / f"{method}.md").write_text(text)


def pages() -> dict[str, str]:
    """The text of each method's page."""
    return {method: _page(method, objective_class(method), OPTIONS[method]) for method in METHODS}


def _page(method: str, make: Any, options: type) -> str:
    module = sys.modules[make.__module__]
    first, sections = _sections(inspect.getdoc(make) or "")
    parts = [f"# {method}: {first.rstrip('.')}", _wrapped(inspect.getdoc(module) or "")]
    parts += [
        _wrapped(f"**{name}.** {_capitalised(sections[name])}")
        for name in SECTIONS
        if name in sections
    ]
    parts += ["## Options", _options(options), "## Presets", _presets(method)]
    parts += ["## Measured here", _measured(method)]
    return "\n\n".join(parts) + "\n"


def _sections(doc: str) -> tuple[str, dict[str, str]]:
    """The first sentence, and the text of each section."""
    head, _, rest = doc.partition("\n\n")
    found: dict[str, str] = {}
    name = ""
    for line in rest.splitlines():
        if match := re.match(r"([A-Z][a-z ]+): (.*)", line):
            name, line = match.groups()
        found[name] = f"{found.get(name, '')} {line.strip()}".strip()
    return " ".join(head.split()), found


def _capitalised(text: str) -> str:
    """With a capital, unless it begins with a formula."""
    first = text.split()[0]
    bare = first.strip(",;:")
    starts_with_word = bare in ("a", "as", "an") or (bare.isalpha() and len(bare) > 2)
    return text[0].upper() + text[1:] if starts_with_word else text


def _wrapped(text: str, indent: str = "") -> str:
    """In lines of at most `WIDTH` columns, those after the first with an indent."""
    return textwrap.fill(
        text, WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )


def _options(kind: type) -> str:
    """A row for each option, with its line of the docstring."""
    meaning = arguments(kind.__doc__)
    rows = [
        f"| `--objective.{f.name.replace('_', '-')}` | {f.default} | {meaning[f.name]} |"
        for f in dataclasses.fields(kind)
    ]
    return "\n".join(["| flag | default | what it is |", "|---|---|---|", *rows])


def _presets(method: str) -> str:
    own = {n: f for n, f in presets.PRESETS.items() if n.partition("_")[0] == method}
    return "\n".join(
        _wrapped(f"- `--preset {name}`: {(inspect.getdoc(make) or '').splitlines()[0]}", "  ")
        for name, make in own.items()
    )


def _measured(method: str) -> str:
    """Results of the recipes and studies of this method, with their commands."""
    tables = [STUDIES[method]] if method in STUDIES else []
    tables += _of_studies(method)
    for file in sorted((ROOT / "recipes").glob(f"*_{method}.json")):
        result = json.loads(file.read_text())
        if not SHOWN.keys() <= result.get("summary", {}).get("features", {}).keys():
            continue
        rows = [
            f"| {output} | " + " | ".join(_mean(s[k]) for k in SHOWN) + " |"
            for output, s in result["summary"].items()
        ]
        seeds, steps = len(result["seeds"]), result["seeds"][0]["steps"]
        hue = (
            ""
            if "hue_space" in result["config"] or "digits" in file.name
            else ", hue turned in YIQ (the weaker views)"
        )
        count = "1 seed" if seeds == 1 else f"{seeds} seeds"
        head = _wrapped(f"`{result['command']}`: {steps:,} steps, {count}{hue}, test part, %.")
        columns = "| | " + " | ".join(SHOWN.values()) + " |\n|---|" + "---|" * len(SHOWN)
        tables.append("\n".join([f"{head}\n\n{columns}", *rows]))
    if not tables:
        return _wrapped(
            "No training with this method is recorded here; [results](../results.md) and "
            "[claims](../claims.md) list the recorded ones."
        )
    return "\n\n".join([*tables, "Details and failures: [experiments](../experiments.md)."])


def _of_studies(method: str) -> list[str]:
    """Results of this method in the studies."""
    tables = []
    if method == "cpc":
        study = json.loads((ROOT / "studies" / "cpc.json").read_text())
        text = (
            f"`python studies/cpc.py phones {study['steps']}`: {study['steps']} steps per row, one "
            "seed, synthetic speech; logistic regression on c_t for phones (95 % interval) and on "
            "its mean for the speaker, of six, %."
        )
        lines = [
            f"| {name} | {_interval(row['phones'])} | "
            + (f"{100 * row['speaker']:.1f} |" if "speaker" in row else "|")
            for name, row in study["rows"].items()
        ]
        head = "| steps ahead, negatives (the batch unless stated) | phones | speaker |"
        tables.append("\n".join([_wrapped(text), "", head, "|---|---|---|", *lines]))
    if method == "simcse":
        rows = json.loads((ROOT / "studies" / "simcse.json").read_text())["rows"]
        chosen = (
            "TF-IDF",
            "small transformer, before",
            "small transformer, dropout 0.1",
            "MiniLM, before",
            "MiniLM, 40 steps, rate 1e-06",
            "MiniLM, 40 steps, rate 1e-05",
        )
        text = (
            "`python studies/simcse.py`: Spearman correlation with human scores on Lee's 50 "
            "documents, trained on 2,500 sentences of news, one seed. From random weights it "
            "learns little, and an encoder that is already contrastive loses."
        )
        lines = [f"| {name} | {rows[name]['lee'][0]:.3f} |" for name in chosen]
        tables.append("\n".join([_wrapped(text), "", "| row | Lee |", "|---|---|", *lines]))
    if method == "exemplar":
        rows = json.loads((ROOT / "studies" / "table1.json").read_text())
        own, other = (
            rows[f"{kind} softmax"]["scores"] for kind in ("parametric", "non-parametric")
        )
        tables.append(
            _wrapped(
                "`python studies/table1.py`: two epochs, 780 steps, of `scenes:fashion-mnist`, one "
                f"seed: kNN (k = 200) {100 * own['features']['knn@200']:.1f} % on features, "
                f"{100 * own['embedding']['knn@200']:.1f} % on the embedding, about as an "
                "untrained encoder; the non-parametric softmax of the same study has "
                f"{100 * other['features']['knn@200']:.1f} %. One weight for each of 50,000 images "
                "learns slowly."
            )
        )
    if method in ("spread", "instdisc"):
        rows = json.loads((ROOT / "studies" / "unseen.json").read_text())["rows"]
        columns = list(rows[method])
        lines = [
            f"| {name} | " + " | ".join(f"{100 * row[c]:.1f}" for c in columns) + " |"
            for name, row in rows.items()
        ]
        head = "| | " + " | ".join(columns) + " |\n|---|" + "---|" * len(columns)
        text = (
            "`python studies/unseen.py`: classes never seen, three epochs, one seed, recall at k "
            "and NMI, %."
        )
        tables.append("\n".join([f"{text}\n\n{head}", *lines]))
    return tables


def _mean(score: dict[str, float]) -> str:
    """In %, with the standard deviation over seeds if there are several."""
    return f"{100 * score['mean']:.1f}" + (f" ± {100 * score['std']:.1f}" if score["n"] > 1 else "")


def _interval(score: list[float]) -> str:
    """In %, with half of its interval."""
    return f"{100 * score[0]:.1f} ± {50 * (score[2] - score[1]):.1f}"


if __name__ == "__main__":
    main()
