"""Steps that never came: gradients that were cleared without an optimizer having applied them (GradScaler's overflow).

No hook tells of a step that is left out, so one small parameter is asked after each backward pass: a gradient that
began anew, although no step was made since the last one, means that the last one was thrown away.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn


class Skipped:
    """``count`` grows by one for each backward pass whose gradients were cleared unused. ``stepped()`` tells of a step.

    Gradients that are zeroed in place (``zero_grad(set_to_none=False)``) look like ones that add up, and go unseen."""

    def __init__(self, model: nn.Module) -> None:
        trained = [p for p in model.parameters() if p.requires_grad and p.is_leaf]
        self.parameter = min(trained, key=lambda p: p.numel(), default=None)
        self.count = 0
        self.unused: Tensor | None = None  # the gradient of the passes since the last step
        self.handle: Any = None

    def open(self) -> None:
        if self.parameter is not None:
            self.handle = self.parameter.register_post_accumulate_grad_hook(self._arrived)  # type: ignore[no-untyped-call]  # untyped in torch

    def close(self) -> None:
        if self.handle is not None and self.parameter is not None:
            self.handle.remove()
            if not self.parameter._post_accumulate_grad_hooks:
                self.parameter._post_accumulate_grad_hooks = None  # type: ignore[assignment]  # as it was
        self.handle = self.unused = None

    def stepped(self) -> None:
        self.unused = None

    def _arrived(self, parameter: Tensor) -> None:
        grad = parameter.grad
        if grad is not None and not grad.requires_grad:
            if self.unused is not None and self.unused is not grad:
                self.count += 1
            self.unused = grad
