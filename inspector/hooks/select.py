"""``Where`` -> modules, under the user's own names: wrappers (DDP, FSDP, compile, checkpoint) leave no trace."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable
from fnmatch import translate
from typing import TypeAlias

from torch import nn

from inspector.hooks.refusals import refuse_model

Where: TypeAlias = str | type[nn.Module] | nn.Module | Callable[[str, nn.Module], bool] | Iterable["Where"]

# Where a wrapper keeps what it wraps. "module" is a common name, so it only counts inside these classes.
_WRAPPED = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
_HOLDERS = ("DistributedDataParallel", "DataParallel", "AveragedModel")
_WRAPPING = {*_WRAPPED, "module"}


def select(model: nn.Module, where: Where = "*") -> dict[str, nn.Module]:
    """The modules that ``where`` means, by dotted name in the model's order; each module once.

    where: a glob over the names ("" is the model itself, "*" all of them), a type, a module, a predicate
    ``(name, module) -> bool``, or a collection of these. Every alias of a shared module finds it; a glob leaves the
    modules of parametrizations out unless it names them.
    Raises LookupError with near matches when nothing fits, TypeError for anything else and for scripted models.
    """
    refuse_model(model)
    return choose(model, names(model), where)


def choose(model: nn.Module, named: dict[str, nn.Module], where: Where) -> dict[str, nn.Module]:
    """``select`` where the names are known."""
    found = set(_match(model, named, where))
    chosen = {name: module for name, module in named.items() if name in found}
    first = {id(module): name for name, module in reversed(chosen.items())}
    return chosen if len(first) == len(chosen) else {n: m for n, m in chosen.items() if first[id(m)] == n}


def names(model: nn.Module) -> dict[str, nn.Module]:
    """Every name of every module, aliases of shared modules included, in registration order."""
    found: dict[str, nn.Module] = {}
    _collect(model, "", set(), found)
    return found


def find(model: nn.Module, name: str) -> nn.Module:
    """The one module of a name, taken literally; LookupError with near matches where there is none."""
    refuse_model(model)
    named = names(model)
    if name not in named:
        raise LookupError(_no_match(model, named, name))
    return named[name]


def aliases(named: dict[str, nn.Module], chosen: dict[str, nn.Module]) -> dict[str, str]:
    """Other names of the chosen modules -> the name they were chosen under."""
    if len(named) == len(chosen):
        return {}
    name_of = {id(module): name for name, module in chosen.items()}
    every = ((name, name_of.get(id(module))) for name, module in named.items())
    return {name: kept for name, kept in every if kept is not None and kept != name}


def _collect(module: nn.Module, name: str, above: set[int], found: dict[str, nn.Module]) -> None:
    found[name] = module  # of a wrapper and what it wraps, which have one name, the wrapped one is kept
    if id(module) in above:  # a module inside itself
        return
    above.add(id(module))
    prefix = f"{name}." if name else ""
    for key, child in module._modules.items():
        if child is None:
            continue
        path = _join(name, key, module) if key in _WRAPPING else prefix + key
        if child._modules:
            _collect(child, path, above, found)
        else:
            found[path] = child
    above.discard(id(module))


def _join(name: str, key: str, parent: nn.Module) -> str:
    holder = key == "module" and any(c.__name__ in _HOLDERS for c in type(parent).__mro__)
    if key in _WRAPPED or holder:
        return name
    return f"{name}.{key}" if name else key


def _match(model: nn.Module, named: dict[str, nn.Module], where: Where) -> list[str]:
    if isinstance(where, str):
        return _by_glob(model, named, where)
    if isinstance(where, type) and issubclass(where, nn.Module):
        return _by_type(model, named, where)
    if isinstance(where, nn.Module):
        return _by_identity(model, named, where)
    if isinstance(where, Iterable):
        return _by_any(model, named, where)
    if callable(where) and not isinstance(where, type):
        return _by_predicate(model, named, where)
    raise TypeError(f"where={where!r} selects nothing: give a glob, a module type, a module, a predicate or a list of these")


def _by_glob(model: nn.Module, named: dict[str, nn.Module], glob: str) -> list[str]:
    fits = list(named) if glob == "*" else _fitting(named, glob)
    if "parametrizations" not in glob:
        fits = [name for name in fits if "parametrizations" not in name or "parametrizations" not in name.split(".")]
    if not fits:
        raise LookupError(_no_match(model, named, glob))
    return fits


def _fitting(named: dict[str, nn.Module], glob: str) -> list[str]:
    fits = re.compile(translate(glob)).match
    return [name for name in named if name == glob or fits(name)]


def _by_type(model: nn.Module, named: dict[str, nn.Module], kind: type[nn.Module]) -> list[str]:
    fits = [name for name, module in named.items() if isinstance(module, kind)]
    if not fits:
        there = ", ".join(sorted({type(module).__name__ for module in named.values()})[:12])
        raise LookupError(f"no module of {type(model).__name__} is a {kind.__name__}; there are {there}")
    return fits


def _by_identity(model: nn.Module, named: dict[str, nn.Module], wanted: nn.Module) -> list[str]:
    inner = unwrap(wanted)
    fits = [name for name, module in named.items() if module is inner]
    if not fits:
        raise LookupError(
            f"this {type(wanted).__name__} is no part of {type(model).__name__}; a slice of a Sequential or ModuleList is a "
            "new container that the model never calls: select the modules in it, such as list(seq[:2])"
        )
    return fits


def _by_predicate(model: nn.Module, named: dict[str, nn.Module], holds: Callable[[str, nn.Module], bool]) -> list[str]:
    fits = [name for name, module in named.items() if holds(name, module)]
    if not fits:
        raise LookupError(
            f"the predicate holds for none of the {len(named)} modules of {type(model).__name__}, {_some(named)}"
        )
    return fits


def _by_any(model: nn.Module, named: dict[str, nn.Module], wheres: Iterable[Where]) -> list[str]:
    fits = [name for where in wheres for name in _match(model, named, where)]
    if not fits:
        raise LookupError("an empty collection selects nothing; give at least one name, or '*' for every module")
    return fits


def unwrap(module: nn.Module) -> nn.Module:
    """What a wrapper (compile, DDP, FSDP, checkpoint) wraps, or the module itself."""
    for key in _WRAPPING.intersection(module._modules):
        child = module._modules[key]
        if child is not None and _join("", key, module) == "":
            return unwrap(child)
    return module


def _no_match(model: nn.Module, named: dict[str, nn.Module], glob: str) -> str:
    tops = [f"{name}.*" for name, module in named.items() if name and any(module.children())]
    near = difflib.get_close_matches(glob, [*filter(None, named), *tops], n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return f"{glob!r} matches no module of {type(model).__name__}; it has {len(named)}, {_some(named)}.{hint}"


def _some(named: dict[str, nn.Module]) -> str:
    shown = ", ".join(repr(name) for name in list(named)[1:4])
    return f"such as {shown}" if shown else "the model itself ('')"
