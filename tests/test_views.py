"""Views written to in place: the gradient is that of the view as it was seen, or None with the reason, never another."""

import gc

import pytest
import torch
from torch import nn
from zoo import Function

from inspector import capture


def grads(model, x, where="*", passes=1):
    with capture(model, where, what="grad") as store:
        loss = model(x)
        for i in range(passes):
            loss.backward(retain_graph=i + 1 < passes)
    return store


class Square(nn.Module):
    def __init__(self):
        super().__init__()
        self.act = nn.ReLU(inplace=True)

    def forward(self, x):
        return self.act(x).pow(2).sum()


def used_twice(write):
    """Flatten answers with a view of what a layer made, which is used elsewhere too."""

    def forward(self, x):
        made = self.make(x)
        flat = self.flat(made)
        other = (made * 5).sum()
        return write(self, flat) + other

    return Function(forward, make=nn.Conv2d(1, 2, 2), flat=nn.Flatten(), end=Square())


WRITES = {
    "a module": lambda self, flat: self.end(flat),
    "an operator": lambda self, flat: self.end(flat.mul_(3)),
    "several writes": lambda self, flat: self.end(flat.mul_(3).add_(1).mul_(flat.detach() + 2)),
    "through another view": lambda self, flat: (flat[:, :2].mul_(3), self.end(flat))[1],
    "used before": lambda self, flat: flat.sum() * 7 + self.end(flat),
    "never": lambda self, flat: (flat * 3).sum(),
}


@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize("passes", [1, 2])
def test_a_view_of_what_is_used_elsewhere_has_its_own_gradient(write, passes):
    model, x = used_twice(WRITES[write]), torch.randn(2, 1, 4, 4)
    store = grads(model, x, passes=passes)
    value = model.make(x).flatten(1).detach().requires_grad_()
    WRITES[write](model, value.clone()).backward()
    assert torch.allclose(store["flat"].grad, passes * value.grad)
    assert torch.allclose(store["make"].grad, passes * (value.grad.view(2, 2, 3, 3) + 5))


def test_what_cannot_be_told_apart_is_none_with_the_reason():
    model = used_twice(lambda self, flat: flat.mul_(3).pow(2).sum())
    store = grads(model, torch.randn(2, 1, 4, 4), "flat")
    assert store["flat"].grad is None
    assert "view overwritten in place" in store["flat"].why["grad"]
    assert "where='*'" in store["flat"].why["grad"]


@pytest.mark.parametrize("where", ["*", "cell"])
def test_the_state_of_a_cell_without_a_batch_is_not_given_the_gradient_of_its_other_use(where):
    def forward(self, x):
        hidden, cell = self.cell(x)
        hidden.mul_(2)
        cell.mul_(3)
        return self.end(hidden + cell)

    model, x = Function(forward, cell=nn.LSTMCell(3, 4), end=Square()), torch.randn(3)
    hidden, cell = (t.detach().requires_grad_() for t in model.cell(x))
    model.end(hidden * 2 + cell * 3).backward()
    call = grads(model, x, where)["cell"]
    for found, true in zip(call.grad, (hidden.grad, cell.grad), strict=True):
        assert (found is None and "overwritten" in call.why["grad"]) or torch.allclose(found, true)
    if where == "*":
        assert call.grad[1] is not None


def test_transposed_and_permuted_bases_are_cut_at_the_right_place():
    def forward(self, x):
        return self.end(self.cut(self.make(x)))

    cut = Function(lambda self, x: x.permute(2, 0, 1)[1:])
    model, x = Function(forward, make=nn.Linear(3, 4), cut=cut, end=Square()), torch.randn(2, 5, 3)
    value = model.cut(model.make(x)).detach().requires_grad_()
    model.end(value.clone()).backward()
    assert torch.allclose(grads(model, x)["cut"].grad, value.grad)


def test_following_views_keeps_nothing_of_the_model():
    model = used_twice(WRITES["a module"])
    before = alive_on_a_graph()  # of other tests
    with capture(model, what="grad", keep=lambda t: None):
        for _ in range(50):
            model(torch.randn(2, 1, 4, 4)).backward()
        assert alive_on_a_graph() - before < 60


def alive_on_a_graph():
    gc.collect()
    return sum(issubclass(type(o), torch.Tensor) and on_a_graph(o) for o in gc.get_objects())


def on_a_graph(tensor):
    try:
        return tensor.grad_fn is not None
    except RuntimeError:  # torch 2.8 leaves undefined tensors about
        return False
