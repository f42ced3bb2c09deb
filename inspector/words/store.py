"""What a store says: what was captured, what is missing and why, and where numbers are broken or dead."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from inspector.records import Call, Store
from inspector.records.summary import in_bytes
from inspector.sites import Site
from inspector.tensors import digest, dtype_text, nbytes, shape_text, walk
from inspector.words.say import Say, plural

Found = list[tuple[str, Tensor]]


def tell(store: Store, say: Say) -> list[str]:
    """Paragraphs: what there is, what is missing, and what looks wrong."""
    if not len(store):
        return [say("store.empty"), *_missing(store, say)]
    found = [pair for name in store for kind in store.kinds for pair in _tensors(store[name], name, kind)]
    return [
        " ".join(_what(store, found, say)),
        " ".join([*_missing(store, say), *_absent(store, say)]),
        " ".join(_wrong(found, say)),
    ]


def tell_call(call: Call, say: Say) -> list[str]:
    """One sentence per tensor, and the reason for every kind that has none."""
    lines = []
    for kind in call.kinds:
        found = _tensors(call, call.site.path or "(model)", kind)
        for name, tensor in found:
            about = {"shape": shape_text(tensor), "dtype": dtype_text(tensor), "digest": digest(tensor)}
            lines.append(say("call.tensor", name=name, **about))
        if not found:
            lines.append(say("store.no_value", kind=kind, count=1, s="", reason=call.reason(kind)))
    return [say("call.what", site=str(call.site), module=call.module), *lines]


def _tensors(call: Call, name: str, kind: Any) -> Found:
    try:
        value = getattr(call, kind)
    except RuntimeError:  # a borrowed value that was overwritten
        return []
    site = Site.parse(name)._replace(kind=kind) if name != "(model)" else Site("", kind=kind)
    return [(str(site._replace(leaf=leaf)) or "(model)", tensor) for leaf, tensor in walk(value)]


def _what(store: Store, found: Found, say: Say) -> Iterator[str]:
    paths = Counter(Site.parse(name).path for name in store)
    size = in_bytes(sum(nbytes(tensor) for _, tensor in found if not tensor.is_meta and not tensor.is_nested))
    counts = {"calls": f"{len(store):,}", "s": plural(len(store)), "modules": f"{len(paths):,}", "ms": plural(len(paths))}
    yield say("store.what", kinds=say.listing(store.kinds), bytes=size, **counts)
    often = {path: n for path, n in paths.items() if n > 1}
    if often:
        name = max(often, key=lambda path: often[path])
        yield say("store.several", count=f"{len(often):,}", name=name or "(model)", times=often[name])


def _missing(store: Store, say: Say) -> Iterator[str]:
    missing = store.coverage.missing
    if missing:
        reasons = say.listing(f"{path or '(model)'} ({status.reason})" for path, status in missing.items())
        yield say("store.missing", count=f"{len(missing):,}", s=plural(len(missing)), reasons=reasons)


def _absent(store: Store, say: Say) -> Iterator[str]:
    reasons = Counter(
        (kind, store[name].why[kind])
        for name in store
        for kind in store.kinds
        if kind in store[name].why and not _tensors(store[name], name, kind)
    )
    for (kind, reason), count in reasons.most_common(3):
        yield say("store.no_value", kind=kind, count=f"{count:,}", s=plural(count), reason=reason)


def _wrong(found: Found, say: Say) -> Iterator[str]:
    dense = [(name, t.coalesce().values() if t.is_sparse else t) for name, t in found if not t.is_meta and not t.is_nested]
    seen = [(name, t) for name, t in dense if t.is_floating_point() and t.numel()]
    broken = [name for name, tensor in seen if not bool(torch.isfinite(tensor).all())]
    if broken:
        yield say("store.broken", sites=say.listing(broken), first=broken[0])
    else:
        yield say("store.fine")
    zero = [name for name, tensor in seen if not bool(tensor.any())]
    if zero:
        yield say("store.zero", sites=say.listing(zero))
    dead = [f"{name} ({_dead(t)} of {t.shape[1]})" for name, t in seen if name not in zero and _dead(t)]
    if dead:
        yield say("store.dead", sites=say.listing(dead))


def _dead(tensor: Tensor) -> int:
    """Channels of (batch, channels, height, width) that are 0 for every sample."""
    return int((~tensor.detach().bool().any(dim=3).any(dim=2).any(dim=0)).sum()) if tensor.dim() == 4 else 0
