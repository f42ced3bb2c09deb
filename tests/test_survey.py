"""The survey: every module of PyTorch's own test database, the models of torchvision and Captum's test models.

What is captured equals, bit for bit, what raw hooks see on an equal model with the same seed; and a model that was
looked at is left as a run nobody looked at leaves it.
"""

import copy
import warnings

import pytest
import torch
from survey import forward_and_backward, judge
from torch import nn

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # the surveyed code warns of itself


MOST = 24  # inputs of one module, spread over those of the database


def module_infos():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            from torch.testing._internal.common_modules import module_db
        except ImportError:
            return []
    return module_db


class Harsh(nn.Module):
    """Writes over what the module answered, as residual connections and in-place activations do."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, *args, **kwargs):
        output = self.inner(*args, **kwargs)
        for t in output if isinstance(output, tuple) else [output]:
            if isinstance(t, torch.Tensor) and (t.is_floating_point() or t.is_complex()):
                t.mul_(2).add_(1)
        return output


def cases(info, training):
    """Each constructible module of the database with each of its inputs; the first dtype it supports."""
    dtype = next(d for d in (torch.float32, *info.dtypes) if d in info.dtypes)
    torch.manual_seed(0)
    every = list(info.module_inputs_func(info, device="cpu", dtype=dtype, requires_grad=True, training=training))
    for case in every[:: 1 + len(every) // MOST]:
        given = case.constructor_input
        module = info.module_cls(*given.args, **given.kwargs)
        if any(p.is_floating_point() for p in module.parameters()):
            module = module.to(dtype)
        yield module.train(training), forward_and_backward(case.forward_input.args, case.forward_input.kwargs)


def runs(module, run):
    try:
        run(copy.deepcopy(module))
    except Exception:
        return False
    return True


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("harsh", [False, True], ids=["alone", "written over"])
@pytest.mark.parametrize("info", module_infos(), ids=lambda info: info.formatted_name)
def test_every_module_of_pytorch(info, training, harsh):
    judged = 0
    for module, run in cases(info, training):
        subject = Harsh(module) if harsh else module
        if runs(subject, run):
            judged += 1
            assert judge(subject, run) == []
    if not judged:
        pytest.skip("it runs with none of its inputs")
