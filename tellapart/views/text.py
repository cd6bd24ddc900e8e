"""Random views of a batch of tokenised sentences, with per-sentence parameters.

Words are kept or moved whole; special tokens are kept.

Sources: word deletion, span deletion, reordering and substitution: CLEAR (Wu et al. 2020, arXiv
2012.15466); cutoff and position shuffling: ConSERT (Yan et al. 2021, arXiv 2105.11741); spans of a
document: DeCLUTR (Giorgi et al. 2021, arXiv 2006.03659).

Shapes: N batch, L tokens, K substitutes.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from .images import uniform
from .settings import TextViews as TextViews

View = dict[str, Tensor]
LATER = 1 << 40  # sorts after every word


def random_views(views: TextViews, batch: View, generator: torch.Generator) -> View:
    """Return a view of every sentence; see `TextViews.__call__`."""
    if batch["ids"].ndim == 3:
        n, columns = batch["ids"].shape[:2]
        flat = views({name: value.flatten(0, 1) for name, value in batch.items()}, generator)
        return {name: value.unflatten(0, (n, columns)) for name, value in flat.items()}
    view = _substituted(views, dict(batch), generator)
    view = _moved(views, view, generator)
    n, length = view["ids"].shape
    device = view["ids"].device
    if views.token_cutoff:
        view["keep"] = (
            torch.rand(n, length, generator=generator, device=device) >= views.token_cutoff
        )
    if views.feature_cutoff:
        view["seed"] = torch.randint(1 << 62, (n,), generator=generator, device=device)
        view["cut"] = torch.full((n,), views.feature_cutoff, device=device)
    if views.shuffle:
        view["position"] = _shuffled(views, view["mask"], generator)
    return views.change(view, generator) if views.change else view


def _moved(views: TextViews, view: View, generator: torch.Generator) -> View:
    """Delete, crop and move words: each kept token gets a key, and tokens are sorted by key."""
    word, mask = view["word"], view["mask"]
    n, length = word.shape
    device = word.device
    count = word.amax(1).clamp_min(0) + 1  # (N,) words
    real = word >= 0
    place, keep = word.clone(), torch.ones_like(mask)
    if views.reorder:
        size = (count * views.reorder).long()
        first = _start(count - 2 * size, generator)
        second = first + size + _start(count - first - 2 * size, generator)
        for here, there in ((first, second), (second, first)):
            inside = (word >= here[:, None]) & (word < (here + size)[:, None])
            place = torch.where(inside, word + (there - here)[:, None], place)
    if views.word_deletion:
        draw = torch.rand(n, length, generator=generator, device=device)
        draw = draw.gather(1, word.clamp(0, length - 1))  # one draw for all tokens of a word
        keep &= draw >= views.word_deletion
    if views.span_deletion:
        keep &= ~_stretch(place, (count * views.span_deletion).long(), count, generator)
    if views.crop:
        keep &= _stretch(
            place, (count * (1 - views.crop)).ceil().long().clamp_min(1), count, generator
        )
    if views.span:
        size = (
            (1 + torch.rand(n, generator=generator, device=device) * views.span)
            .long()
            .minimum(count)
        )
        keep &= _stretch(place, size, count, generator)
    if torch.equal(place, word) and bool(keep.all()):
        return view
    none = ~(keep & real).any(1)  # if all words are deleted, keep the first
    keep |= none[:, None] & (word == 0)
    line = torch.arange(length, device=device)
    key = torch.where(real & keep, place * length + line, LATER)
    key = torch.where(~real & mask & (line == 0), -1, key)  # the token before the first word
    key = torch.where(~real & mask & (line > 0), LATER - 1, key)  # the one after the last
    order = key.argsort(dim=1, stable=True)
    stays = key.gather(1, order) < LATER
    moved = {name: value.gather(1, order) for name, value in view.items()}
    return moved | {
        "mask": stays,
        "ids": moved["ids"].where(stays, 0),
        "word": moved["word"].where(stays, -1),
    }


def _substituted(views: TextViews, view: View, generator: torch.Generator) -> View:
    if not views.substitution or views.synonyms is None:
        return view
    synonyms = views.synonyms.to(view["ids"].device)
    n, length = view["ids"].shape
    several = synonyms[view["ids"]]  # (N, L, K)
    usable = (several >= 0).sum(2)
    pick = (torch.rand(n, length, generator=generator, device=synonyms.device) * usable).long()
    new = several.gather(2, pick[:, :, None].clamp(max=several.shape[2] - 1))[:, :, 0]
    chosen = torch.rand(n, length, generator=generator, device=synonyms.device) < views.substitution
    word = F.pad(view["word"], (1, 1), value=-2)
    alone = (word[:, 1:-1] >= 0) & (word[:, 1:-1] != word[:, :-2]) & (word[:, 1:-1] != word[:, 2:])
    view["ids"] = torch.where(chosen & (usable > 0) & alone, new, view["ids"])
    return view


def _shuffled(views: TextViews, mask: Tensor, generator: torch.Generator) -> Tensor:
    """Return positions (N, L), shuffled among the real tokens of randomly chosen sentences."""
    n, length = mask.shape
    line = torch.arange(length, device=mask.device).expand(n, length)
    key = torch.rand(n, length, generator=generator, device=mask.device).masked_fill(~mask, 2.0)
    chosen = torch.rand(n, generator=generator, device=mask.device) < views.shuffle
    return torch.where((chosen[:, None] & mask), key.argsort(1).argsort(1), line)


def _stretch(place: Tensor, size: Tensor, count: Tensor, generator: torch.Generator) -> Tensor:
    """Return a mask (N, L) of the tokens in a random span of `size` (N,) of `count` (N,) words."""
    start = _start(count - size, generator)
    return (place >= start[:, None]) & (place < (start + size)[:, None])


def _start(room: Tensor, generator: torch.Generator) -> Tensor:
    """Draw (N,) integers, uniform in 0..room inclusive; 0 where room is negative."""
    room = room.clamp_min(0)
    draw = uniform(len(room), (0.0, 1.0), generator, room.device)
    return (draw * (room + 1)).long().minimum(room)


def join_tokens(views: list[View]) -> View:
    """Concatenate views along the batch, padded to the longest sentence."""
    longest = max(view["ids"].shape[-1] for view in views)
    joined = {}
    for name, first in views[0].items():
        values = [view[name] for view in views]
        if first.ndim > 1:
            empty = -1 if name == "word" else 0
            values = [F.pad(v, (0, longest - v.shape[-1]), value=empty) for v in values]
        joined[name] = torch.cat(values)
    return joined
