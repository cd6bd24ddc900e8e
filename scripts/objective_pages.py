"""Write docs/objectives/METHOD.md from the docstrings, the options, the presets and the recipes'
results.

`python scripts/objective_pages.py` writes them; `scripts/check` fails where one differs from what
it would write.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
import sys
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

`python studies/digit_map.py`: the digits 4 (blue) and 9 (red) in two dimensions, learned without labels from each
image's five nearest by pixels. On the map the five nearest training items name the class of all 74 test items; on the
two first principal components of the pixels, of 96.0 % (one seed)."""
}
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
    parts = [f"# {method}: {first.rstrip('.')}", inspect.getdoc(module) or ""]
    parts += [f"**{name}.** {_said(sections[name])}" for name in SECTIONS if name in sections]
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


def _said(text: str) -> str:
    """With a capital, unless it begins with a formula."""
    return (
        text[0].upper() + text[1:]
        if text.split()[0].isalpha() and len(text.split()[0]) > 2
        else text
    )


def _options(kind: type) -> str:
    """A row for each option, with its line of the docstring."""
    said = arguments(kind.__doc__)
    rows = [
        f"| `--objective.{f.name.replace('_', '-')}` | {f.default} | {said[f.name]} |"
        for f in dataclasses.fields(kind)
    ]
    return "\n".join(["| flag | default | what it is |", "|---|---|---|", *rows])


def _presets(method: str) -> str:
    own = {n: f for n, f in presets.PRESETS.items() if n.partition("_")[0] == method}
    return "\n".join(
        f"- `--preset {name}`: {(inspect.getdoc(make) or '').splitlines()[0]}"
        for name, make in own.items()
    )


def _measured(method: str) -> str:
    """What the recipes and studies of this method found, with their command."""
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
        head = f"`{result['command']}`: {steps:,} steps, {seeds} seed(s){hue}, test part, %."
        columns = "| | " + " | ".join(SHOWN.values()) + " |\n|---|" + "---|" * len(SHOWN)
        tables.append("\n".join([f"{head}\n\n{columns}", *rows]))
    if not tables:
        return "Its loss, against the paper's equation as a loop (`tests/`). No recipe has been run yet."
    return "\n\n".join([*tables, "How, and what failed: [experiments](../experiments.md)."])


def _of_studies(method: str) -> list[str]:
    """What studies over several methods found of this one."""
    tables = []
    if method == "exemplar":
        rows = json.loads((ROOT / "studies" / "table1.json").read_text())
        own, other = (
            rows[f"{kind} softmax"]["scores"] for kind in ("parametric", "non-parametric")
        )
        tables.append(
            "`python studies/table1.py`: two epochs, 780 steps, of `scenes:fashion-mnist`, one seed: kNN (k = 200) "
            f"{100 * own['features']['knn@200']:.1f} % on features, {100 * own['embedding']['knn@200']:.1f} % on the "
            "embedding, about where an untrained encoder is; the non-parametric softmax of the same study stands at "
            f"{100 * other['features']['knn@200']:.1f} %. One weight for each of 50,000 images learns slowly."
        )
    if method in ("spread", "instdisc"):
        rows = json.loads((ROOT / "studies" / "unseen.json").read_text())["rows"]
        columns = list(rows[method])
        lines = [
            f"| {name} | " + " | ".join(f"{100 * row[c]:.1f}" for c in columns) + " |"
            for name, row in rows.items()
        ]
        head = "| | " + " | ".join(columns) + " |\n|---|" + "---|" * len(columns)
        said = "`python studies/unseen.py`: classes never seen, three epochs, one seed, recall at k and NMI, %."
        tables.append("\n".join([f"{said}\n\n{head}", *lines]))
    return tables


def _mean(found: dict[str, float]) -> str:
    """In %, with the standard deviation over seeds where there are several."""
    return f"{100 * found['mean']:.1f}" + (f" ± {100 * found['std']:.1f}" if found["n"] > 1 else "")


if __name__ == "__main__":
    main()
