"""Calls whose values no hook can measure are not passed over in silence: it is said once, with the cure."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

_COMPILED = (
    "{} ran inside a compiled function, whose graph holds no hooks of the monitor, so outputs and their gradients are not "
    "measured there; call model.compile() before the monitor starts, and they are measured inside the graph"
)
_TRANSFORMED = (
    "the model ran only inside vmap or another torch.func transform, whose values are not those of a step, so outputs are "
    "not measured; call the model itself for the steps that are to be looked at"
)
_NOTHING = (
    "at two measured steps no call of a chosen module was seen, though an optimizer stepped: either none of them runs in "
    "this thread, or they run inside a function that was compiled before the monitor started; then call model.compile() and "
    "start the monitor before the first compiled run, or call torch.compiler.reset() after starting it"
)


class Unseen:
    """``inside``: modules that run in a compiled function around the model; they get no hooks any more, since each change of
    hooks could have that function compiled anew."""

    def __init__(self) -> None:
        self.inside: set[str] = set()
        self.empty = 0  # measured steps without any call; below 0 once there was one
        self.told: set[str] = set()

    def compiled(self, blocks: Sequence[Mapping[str, bool]]) -> bool:
        """Is any module new to ``inside``? blocks: for each module with hooks, whether a graph was made of it."""
        if not any(True in block.values() for block in blocks):
            return False  # as nearly always
        new = {path for block in blocks for path, inside in block.items() if inside} - self.inside
        if new and not self.inside:
            named = sorted(new)
            more = f" and {len(named) - 1} more modules" if len(named) > 1 else ""
            self._tell(_COMPILED.format((named[0] or "the model") + more))
        self.inside |= new
        return bool(new)

    def step(self, *, calls: bool, transformed: bool) -> None:
        """A measured step: was any call seen, and did any run inside a transform?"""
        if calls:
            self.empty = -1
        elif transformed:
            self._tell(_TRANSFORMED)
        elif self.empty >= 0:
            self.empty += 1
            if self.empty == 2:
                self._tell(_NOTHING)

    def _tell(self, text: str) -> None:
        if text not in self.told:
            self.told.add(text)
            warnings.warn(text, RuntimeWarning, stacklevel=2)
