"""A torch function mode that is put into the stack of modes and taken out while a call runs, from inside hooks.

The user's code may have entered modes of its own in between, and must find them on top when it leaves them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.overrides import TorchFunctionMode


class Placed(TorchFunctionMode):
    """In the stack or not; ``take_out`` answers what was right above, and ``put`` goes back under it."""

    def __init__(self) -> None:
        super().__init__()
        self.on = False

    def put(self, under: Any = None) -> None:
        """Right under that mode, or on top."""
        modes = _taken()
        modes.insert(modes.index(under) if under in modes else len(modes), self)
        _stack(modes)
        self.on = True

    def put_lowest(self) -> None:
        """Under all others, which then see the call first."""
        _stack([self, *_taken()])
        self.on = True

    def take_out(self) -> Any:
        """Also where it is not in the stack; the mode that was right above it, or None."""
        if not self.on:
            return None
        modes = _taken()
        above = modes[modes.index(self) + 1 :]
        _stack([mode for mode in modes if mode is not self])
        self.on = False
        return above[0] if above else None


def _taken() -> list[Any]:
    """The whole stack, lowest first, which is empty then."""
    return [torch._C._pop_torch_function_stack() for _ in range(torch._C._len_torch_function_stack())][::-1]


def _stack(modes: list[Any]) -> None:
    for mode in modes:
        torch._C._push_on_torch_function_stack(mode)
