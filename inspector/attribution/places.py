"""Where in the model: sites under the names their modules run by, what passes there, and which axis is the batch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from torch import Tensor, nn

from inspector.hooks import Event, select, tap
from inspector.hooks.parameters import named_inputs
from inspector.hooks.select import names
from inspector.sites import Kind, Site
from inspector.tensors import Leaf, format_leaf, only_tensor, pick, rebuild, run, shape_text, walk

_BATCH_FIRST = (nn.modules.conv._ConvNd, nn.modules.batchnorm._BatchNorm, nn.modules.pooling._MaxPoolNd)


class Passed(NamedTuple):
    """The live value of one call, as the module nests it."""

    site: Site
    value: Any
    module: nn.Module


Calls = Mapping[tuple[str, int | None, str], Passed]


def known(model: nn.Module, layer: str | Site) -> Site:
    """The site under the name that its module is tapped by. Raises LookupError with near matches for unknown modules."""
    site = Site.parse(layer)
    if site.kind not in ("output", "input"):
        raise ValueError(f"{site}: what is explained is an output or an input of a module, not its {site.kind}")
    found = _named(model, site.path)
    if len(found) > 1:
        raise LookupError(f"layer={str(site)!r} names {len(found)} modules; give one, such as {next(iter(found))!r}")
    [(path, module)] = found.items()
    return site._replace(path=path, leaf=_by_name(module, site) if site.kind == "input" else site.leaf)


def watch(
    model: nn.Module, where: Iterable[str], run: Callable[[], Any], kinds: Iterable[Kind] = ("output",)
) -> dict[tuple[str, int | None, str], Passed]:
    """What passes the modules while ``run()`` runs the model, call by call: copies on the graph, because an in-place
    operation may follow."""
    seen: dict[tuple[str, int | None, str], Passed] = {}
    wanted = frozenset(where)

    def see(event: Event) -> None:
        seen[event.site.path, event.site.call, event.site.kind] = Passed(event.site, _copy(event.value), event.module)

    with tap(model, lambda name, _: name in wanted, see, what=kinds):
        run()
    return seen


def _copy(value: Any) -> Any:
    return rebuild(value, lambda _, tensor: tensor.clone())


def at(seen: Calls, site: Site) -> tuple[Site, Tensor, nn.Module]:
    """The call of a site, its one tensor and its module. Raises LookupError where it did not happen or is not one."""
    calls = [passed for (path, _, kind), passed in seen.items() if path == site.path and kind == site.kind]
    if not calls:
        raise LookupError(f"{str(site)!r} did not run for these inputs, so there is nothing to explain at it")
    if site.call is None and len(calls) > 1:
        some = ", ".join(str(site._replace(call=passed.site.call)) for passed in calls[:8])
        raise LookupError(f"{site.path!r} ran {len(calls)} times; name one: {some}")
    for passed in calls:
        if site.call in (None, passed.site.call):
            tensor = only_tensor(pick(passed.value, site.leaf), str(site))
            return site._replace(call=passed.site.call), tensor, passed.module
    raise LookupError(missed(site, len(calls)))


def missed(site: Site, times: int) -> str:
    return f"{site} did not happen: {site.path!r} ran {times} time{'s' * (times > 1)}, counted from 0"


def batch_axis(module: nn.Module, site: Site, value: Tensor, size: int, again: Callable[[int], Tensor]) -> int:
    """Which axis of ``value`` is the batch; ``again(n)`` is the same value for n samples, asked where shapes do not tell.
    Raises ValueError where no axis is."""
    if value.dim() and value.shape[0] == size and (isinstance(module, _BATCH_FIRST) or value.dim() == 1):
        return 0
    axes = [axis for axis, n in enumerate(value.shape) if n == size]
    if len(axes) > 1:
        other = again(size + 1)
        axes = [axis for axis in axes if other.dim() == value.dim() and other.shape[axis] == size + 1]
    if len(axes) != 1:
        raise ValueError(
            f"no axis of {site} ({shape_text(value)}) is the batch of {size} samples, so nothing can be told apart per "
            "sample there; choose another layer"
        )
    return axes[0]


def leaves(site: Site, value: Any) -> list[Site]:
    """One site per tensor of a nested value."""
    return [site._replace(leaf=leaf) for leaf, _ in walk(value)]


def input_name(leaf: Leaf) -> str:
    """How an explained input is called in messages."""
    return f"input {format_leaf(leaf)}" if leaf else "the input"


def _by_name(module: nn.Module, site: Site) -> Leaf:
    """The leaf of an input with the parameter's name in place of its position."""
    if not site.leaf or isinstance(site.leaf[0], str):
        return site.leaf
    given = tuple(range(site.leaf[0] + 1))
    return (list(named_inputs(module, given, {}))[-1], *site.leaf[1:])


def _named(model: nn.Module, path: str) -> dict[str, nn.Module]:
    """The module of exactly this name, under the name it is tapped by; else what the path means as a glob."""
    module = names(model).get(path)
    return select(model, path if module is None else module)


def run_for(model: nn.Module, inputs: Any, site: Site) -> Tensor:
    """Run the model for the one tensor at a site."""
    site = known(model, site)
    return at(watch(model, [site.path], lambda: run(model, inputs), (site.kind,)), site)[1]
