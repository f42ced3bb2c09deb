"""For each chosen module: how often it ran, or why it did not. A model's own structure tells the reason."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import nn

from inspector.hooks.select import names, unwrap
from inspector.records.coverage import Coverage, Status

if TYPE_CHECKING:
    from inspector.hooks.mounted import Mounted
    from inspector.records.store import Store


def cover(types: Mapping[str, str], calls: Mapping[str, int], reasons: Mapping[str, str], store: Store) -> Coverage:
    """types: every chosen module's path -> its class; calls: how often it ran; reasons: why it did not."""
    found = {}
    for path, kind in types.items():
        ran = calls.get(path, 0)
        found[path] = Status(kind, ran, reasons.get(path), _notes(store, path) if ran else {})
    return Coverage(found)


def missing(
    model: nn.Module, chosen: dict[str, nn.Module], before: dict[str, nn.Module], mounted: Mounted
) -> dict[str, str]:
    """Why each chosen module that has not run did not; ``before``: all names as they were when the block opened."""
    ran = mounted.calls
    idle = [path for path in chosen if path not in ran]
    if not idle:
        return {}
    now, elsewhere = names(model), mounted.elsewhere
    return {path: _why_not(path, chosen[path], before, now, elsewhere, ran) for path in idle}


def _notes(store: Store, path: str) -> dict[str, str]:
    notes: dict[str, dict[str, int]] = {}
    calls = store.by_path.get(path, [])
    if not any(call.why for call in calls):
        return {}
    for call in calls:
        for kind, why in call.why.items():
            notes.setdefault(kind, {}).setdefault(why, 0)
            notes[kind][why] += 1
    return {kind: "; ".join(_times(why, n, len(calls)) for why, n in whys.items()) for kind, whys in notes.items()}


def _times(why: str, count: int, total: int) -> str:
    return why if count == total else f"{why} ({count} of {total} calls)"


def _why_not(
    path: str,
    module: nn.Module,
    before: dict[str, nn.Module],
    now: dict[str, nn.Module],
    elsewhere: set[str],
    ran: dict[str, int],
) -> str:
    if path in elsewhere:
        return "it ran in another thread; open the block in the thread that runs the model"
    if isinstance(module, torch.jit.ScriptModule):
        return "scripted: TorchScript never calls hooks; capture the module that was scripted"
    if now.get(path) is not module:
        return "replaced after the block opened"
    if type(module).forward is nn.Module.forward or isinstance(module, (nn.ModuleList, nn.ModuleDict)):
        return "container: it holds modules and has no forward of its own"
    return _from_family(path, before, ran)


def _from_family(path: str, before: dict[str, nn.Module], ran: dict[str, int]) -> str:
    """What the calls around a module tell about it."""
    if not ran:
        return "nothing chosen ran inside the block; run the model inside it"
    parent_path = path.rpartition(".")[0]
    parent = before.get(parent_path)
    if isinstance(parent, nn.MultiheadAttention):
        return "MultiheadAttention uses its weights directly and never calls it"
    if isinstance(parent, (nn.TransformerEncoderLayer, nn.TransformerEncoder)) and parent_path not in ran:
        return "fused fast path, or its layer did not run"
    if any(name.startswith(f"{path}.") for name in ran):
        return "its parts ran but not itself: .forward was called directly, or its parts were"
    if _compiled(before):
        return "branch not taken, .forward called directly, or inside a region compiled before the block"
    return "branch not taken: the model ran and did not call it (or called its .forward directly)"


def _compiled(before: dict[str, nn.Module]) -> bool:
    root = before.get("")
    return root is not None and (unwrap(root) is not root or root._compiled_call_impl is not None)
