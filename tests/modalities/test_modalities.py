"""One object per kind of data: every hook is there, and few places look at types."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

from tellapart.data import MODALITIES, Modality, modality_of
from tellapart.data.modality import BUILTIN_KINDS

PACKAGE = Path(__file__).resolve().parents[2] / "tellapart"
MOST = 12


def test_few_places_look_at_the_type_of_a_source_an_encoder_or_a_configuration():
    """Each has a comment with its reason on one of the three lines above it."""
    found = []
    for file in sorted(PACKAGE.rglob("*.py")):
        lines = file.read_text().splitlines()
        for number, line in enumerate(lines):
            if re.search(r"isinstance\([^()]*, [^()]*(Source|Encoder|Config)\b", line):
                found.append(f"{file.relative_to(PACKAGE)}:{number + 1}: {line.strip()}")
                near = [line, *lines[max(0, number - 3) : number]]
                assert any("#" in one for one in near), f"no reason at {found[-1]}"
    assert len(found) <= MOST, "\n".join(found)


def test_the_trainer_knows_no_kind_of_data():
    text = (PACKAGE / "training" / "trainer.py").read_text()
    names = (
        r"ImageSource|SequenceSource|TextSource|TextEncoder|SequenceEncoder|TrainConfig|TextConfig"
    )
    assert not re.search(names, text)


@pytest.mark.parametrize("kind", BUILTIN_KINDS)
def test_every_hook_is_defined_and_documented(kind):
    modality = modality_of(kind)
    assert modality.kind == kind
    for name, hook in vars(Modality).items():
        if inspect.isfunction(hook):
            assert hook.__doc__, name
            assert getattr(type(modality), name) is not hook, f"{kind} lacks {name}"
    assert set(BUILTIN_KINDS) <= set(MODALITIES)
