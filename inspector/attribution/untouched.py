"""A model is explained as it predicts, in evaluation mode, and is handed back exactly as it was, also after an error.

Whole dictionaries of the modules are compared afterwards, because a method may leave more than it says: Captum leaves
``.input``, ``.rule`` and ``.activations`` on modules, and a model may count its own calls.
"""

from __future__ import annotations

import random
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import chain
from operator import is_
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from inspector.hooks.eager import eager

_INNER = (
    *("_parameters", "_buffers", "_modules"),
    *("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks"),
    *("_forward_hooks_with_kwargs", "_forward_pre_hooks_with_kwargs", "_forward_hooks_always_called"),
)


@contextmanager
def untouched(model: nn.Module, *, seed: int = 0) -> Iterator[None]:
    """Inside: evaluation mode, gradients on, random numbers from ``seed``. Afterwards everything is as it was."""
    with ExitStack() as stack:
        stack.enter_context(eager())
        stack.enter_context(_same_random_state(model, seed))
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        stack.enter_context(_recurrent_backward(model))
        stack.enter_context(_plain_attention())
        stack.enter_context(_same_modules(model))
        stack.enter_context(_quiet())
        yield


@contextmanager
def _same_random_state(model: nn.Module, seed: int) -> Iterator[None]:
    places = {t.device for t in (*model.parameters(), *model.buffers())}
    cuda = sorted({p.index or 0 for p in places if p.type == "cuda"})
    python, numpy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=cuda):
            torch.default_generator.manual_seed(seed)  # torch.manual_seed notes a stack trace too, which takes longer
            for device in cuda:
                torch.cuda.default_generators[device].manual_seed(seed)
            np.random.seed(seed % 2**32)
            random.seed(seed)
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)


@contextmanager
def _recurrent_backward(model: nn.Module) -> Iterator[None]:
    """cuDNN refuses the backward pass of an RNN in evaluation mode; torch's own kernels do it."""
    on_gpu = any(p.is_cuda for m in model.modules() if isinstance(m, nn.RNNBase) for p in m.parameters())
    with torch.backends.cudnn.flags(enabled=False) if on_gpu else ExitStack():
        yield


@contextmanager
def _plain_attention() -> Iterator[None]:
    """Without gradients, torch's encoder layers turn padded batches into nested tensors, which have no positions and run
    none of the modules inside; with gradients they do not. So that all passes agree, they never do."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


@contextmanager
def _quiet() -> Iterator[None]:
    """Captum's remarks on requires_grad, on its own hooks and, when it is first loaded in a notebook, on its progress bar
    are about its workings, not about the user's model."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"captum\..*")
        warnings.filterwarnings("ignore", message="IProgress not found")
        yield


@contextmanager
def _same_modules(model: nn.Module) -> Iterator[None]:
    modules = list(model.modules())
    before = [_state(module) for module in modules]
    buffers = [(b, b._version, b.clone()) for b in model.buffers() if not b.is_inference()]
    try:
        for module in modules:
            if module.training:
                module.training = False  # not .eval(): a module's own train() may do more than set the mode
        yield
    finally:
        for now, earlier in chain.from_iterable(before):
            if now or earlier:
                _make_same(now, earlier)
        for buffer, version, saved in buffers:
            if buffer._version != version:
                with torch.no_grad():
                    buffer.copy_(saved)


def _state(module: nn.Module) -> list[tuple[dict[Any, Any], dict[Any, Any]]]:
    """The module's dictionaries with what they hold: its attributes, and then parameters, submodules, hooks and so on."""
    own = module.__dict__
    inner = [own[name] for name in _INNER if isinstance(own.get(name), dict)]  # of scripted modules they are no dicts
    return [(now, dict(now)) for now in (own, *inner)]


def _make_same(now: dict[Any, Any], before: dict[Any, Any]) -> None:
    """Give a dictionary its earlier content back, itself staying the same object."""
    if len(now) == len(before) and all(map(is_, now.values(), before.values())) and list(now) == list(before):
        return
    now.clear()
    now.update(before)


def private(tensor: Tensor) -> Tensor:
    """A copy of the user's tensor that methods may ask gradients of."""
    return tensor.detach().clone()
