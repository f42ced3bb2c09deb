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
from inspector.tensors import dtype_text, nbytes, shape_text, walk
from inspector.words.facts import earliest, innermost
from inspector.words.say import Say
from inspector.words.small import missed

Found = list[tuple[str, Tensor]]


def tell(store: Store, say: Say) -> list[str]:
    """Paragraphs: what there is, what is missing, and what looks wrong."""
    lost = missed(store.coverage, say)
    if not len(store):
        return [say("store.empty"), *lost]
    found = [pair for name in store for kind in store.kinds for pair in _tensors(store[name], name, kind)]
    return [" ".join(_what(store, found, say)), " ".join([*lost, *_absent(store, say)]), " ".join(_wrong(found, say))]


def tell_call(call: Call, say: Say) -> list[str]:
    """One sentence per tensor, and the reason for every kind that has none."""
    lines = []
    for kind in call.kinds:
        found = _tensors(call, str(Site(call.site.path)), kind)
        lines += [_tensor(name, tensor, say) for name, tensor in found]
        if not found:
            lines.append(say.of(1, "store.no_value", kind=kind, reason=call.reason(kind)))
    site = call.site._replace(path=say.module(call.site.path))
    return [say("call.what", site=str(site), module=call.module), *lines]


def _tensor(name: str, tensor: Tensor, say: Say) -> str:
    about = {"name": say.module(name), "shape": shape_text(tensor), "dtype": dtype_text(tensor)}
    numbers = _numbers(tensor)
    finite = numbers[torch.isfinite(numbers)]
    if not finite.numel():
        return say("call.unread", **about)
    lost = numbers.numel() - finite.numel()
    told = {
        key: say.figure(at(finite).item()) for key, at in (("low", torch.min), ("high", torch.max), ("mean", torch.mean))
    }
    zeros = say.percent((numbers == 0).double().mean().item())
    return say("call.tensor", zeros=zeros, broken=say.of(lost, "call.broken") if lost else "", **about, **told)


def _numbers(tensor: Tensor) -> Tensor:
    """All numbers of a tensor in a row, complex ones by their size; none where it holds none that can be read."""
    if tensor.is_meta or tensor.is_nested or tensor.is_quantized:
        return torch.empty(0)
    dense = tensor.detach().to_dense()
    return (dense.abs() if dense.is_complex() else dense).double().reshape(-1)


def _tensors(call: Call, name: str, kind: Any) -> Found:
    try:
        value = getattr(call, kind)
    except RuntimeError:  # a borrowed value that was overwritten
        return []
    site = Site.parse(name)._replace(kind=kind)
    return [(str(site._replace(leaf=leaf)), tensor) for leaf, tensor in walk(value)]


def _what(store: Store, found: Found, say: Say) -> Iterator[str]:
    paths = Counter(Site.parse(name).path for name in store)
    size = in_bytes(sum(nbytes(tensor) for _, tensor in found if not tensor.is_meta and not tensor.is_nested))
    counts = {"calls": say.of(len(store), "count.calls"), "modules": say.of(len(paths), "count.modules")}
    yield say.of(len(store), "store.what", kinds=say.listing(store.kinds), bytes=size, **counts)
    often = {path: n for path, n in paths.items() if n > 1}
    if often:
        name = max(often, key=lambda path: often[path])
        yield say.of(len(often), "store.several", name=say.module(name), times=often[name])


def _absent(store: Store, say: Say) -> Iterator[str]:
    """Why values are missing; of kinds that a module has not by its nature, only where no module here has any."""
    calls = [store[name] for name in store]
    there = {kind for kind in store.kinds if any(not call.has_no(kind) for call in calls)}
    reasons = Counter(
        (kind, call.why[kind])
        for call in calls
        for kind in store.kinds
        if kind in call.why and not (kind in there and call.has_no(kind)) and not _tensors(call, "a", kind)
    )
    for (kind, reason), count in reasons.most_common(3):
        yield say.of(count, "store.no_value", kind=kind, reason=reason)


def _wrong(found: Found, say: Say) -> Iterator[str]:
    dense = [(name, t.coalesce().values() if t.is_sparse else t) for name, t in found if not t.is_meta and not t.is_nested]
    seen = [(name, t) for name, t in dense if t.is_floating_point() and t.numel()]
    broken = [name for name, tensor in seen if not bool(torch.isfinite(tensor).all())]
    if broken:
        began = say("store.began", first=say.module(_began(broken))) if len(broken) > 1 else ""
        yield say("store.broken", sites=say.listing(map(say.module, broken)), began=began)
    else:
        yield say("store.fine")
    zero = [name for name, tensor in seen if not bool(tensor.any())]
    if zero:
        yield say("store.zero", sites=say.listing(map(say.module, zero)))
    dead = {name: (_dead(t), t.shape[1]) for name, t in seen if name not in zero and _dead(t)}
    told = [say("store.dead_site", name=say.module(n), dead=dead[n][0], all=dead[n][1]) for n in innermost(list(dead))]
    if told:
        yield say("store.dead", sites=say.listing(told))


def _began(broken: list[str]) -> str:
    """Of the sites that are not finite the first in run order whose module holds no other; gradients run backwards."""
    forward = [name for name in broken if not Site.parse(name).kind.startswith("grad")]
    return earliest(forward, "output") if forward else earliest(broken, "grad")


def _dead(tensor: Tensor) -> int:
    """Channels of (batch, channels, height, width) that are 0 for every sample."""
    return int((~tensor.detach().bool().any(dim=3).any(dim=2).any(dim=0)).sum()) if tensor.dim() == 4 else 0
