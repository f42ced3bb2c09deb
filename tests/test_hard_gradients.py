"""Gradients (hard cases 11 to 19), each against a closed form or torch.autograd on a model split by hand."""

from dataclasses import dataclass

import pytest
import torch
import zoo
from torch import nn
from torch.utils.checkpoint import checkpoint

from inspector import capture, tap
from inspector.tensors import walk


def grads(model, where="*", kinds="grad", **options):
    return capture(model, where, what=kinds, **options)


def test_the_gradient_is_that_of_the_value_before_an_in_place_operation():
    model, x = zoo.make("written_over")
    with grads(model, "a") as store:
        zoo.loss_of(model(x)).backward()
    hidden = model.a(x).detach().requires_grad_()
    zoo.loss_of(model.b((hidden + 1) * 2)).backward()
    assert torch.allclose(store["a"].grad, hidden.grad)


@dataclass
class Record:
    logits: torch.Tensor
    count: int = 3
    extra: tuple = ()


class ModelOutput(dict):
    """As in transformers: a mapping whose fields are attributes too."""

    def __setitem__(self, key, value):
        super().__setitem__(key, value)
        super().__setattr__(key, value)


SHAPES = {
    "dict": lambda t, u: {"one": t, "two": u},
    "list": lambda t, u: [t, u],
    "tuple of tuples": lambda t, u: (t, (u, None)),
    "dataclass": lambda t, u: Record(t, extra=(u,)),
    "namedtuple": zoo.Pair,
    "model output": lambda t, u: ModelOutput(one=t, two=u),
}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_gradients_come_in_the_nesting_of_the_output(shape):
    inner = zoo.Function(lambda s, x: shape(x * 2, x * 3))
    model = zoo.Function(lambda s, x: sum((i + 1) * t.sum() for i, (_, t) in enumerate(walk(s.inner(x)))), inner=inner)
    with grads(model, "inner", ("output", "grad")) as store:
        model(torch.randn(2, 3, requires_grad=True)).backward()
    assert type(store["inner"].grad) is type(store["inner"].output)
    assert [leaf for leaf, _ in walk(store["inner"].grad)] == [leaf for leaf, _ in walk(store["inner"].output)]
    assert [t.unique().item() for _, t in walk(store["inner"].grad)] == [1, 2]


def test_an_lstm_gives_the_gradients_of_its_output_and_of_its_states():
    model, x = nn.LSTM(2, 3, num_layers=2, batch_first=True), torch.randn(4, 5, 2)
    with grads(model) as store:
        output, (h, c) = model(x)
        (output.sum() + 2 * h.sum() + 3 * c.sum()).backward()
    assert store.at(":grad[0]").eq(1).all()
    assert store.at(":grad[1][0]").eq(2).all()
    assert store.at(":grad[1][1]").eq(3).all()


def test_a_packed_sequence_gives_gradients_in_a_packed_sequence():
    model, x = zoo.make("packed")
    with grads(model, "gru", ("output", "grad")) as store:
        zoo.loss_of(model(x)).backward()
    packed, hidden = store["gru"].grad
    assert packed.data.shape == store["gru"].output[0].data.shape
    assert packed.batch_sizes is None
    assert hidden is None
    assert "not differentiable" in store["gru"].why["grad"]
    assert "not reached by the loss" in store["gru"].why["grad"]


def test_inputs_are_addressed_by_position_and_by_name_also_when_given_by_keyword():
    model, x = zoo.make("keywords")
    with grads(model, "inner", ("input", "grad_input")) as store:
        model(x.requires_grad_()).sum().backward()
    assert torch.equal(store.at("inner:input[x]"), x)
    assert store["inner"].input["scale"] == 2.0
    assert torch.equal(store.at("inner:grad_input[x]"), x.grad)


@pytest.mark.parametrize("name", ["frozen", "half_frozen"])
def test_without_a_graph_the_gradient_is_none_and_says_so(name):
    model, x = zoo.make(name)
    with grads(model) as store:
        loss = zoo.loss_of(model(x))
        if loss.requires_grad:
            loss.backward()
    assert store["0"].grad is None
    assert "no graph" in store["0"].why["grad"]
    assert "no graph" in store.coverage["0"].notes["grad"]


def test_a_gradient_asked_of_integers_is_none_and_says_so():
    model = zoo.Function(lambda s, x: s.ids(x).float() * x.sum(), ids=zoo.Function(lambda s, x: x.long()))
    with grads(model, "ids") as store:
        model(torch.ones(3, requires_grad=True)).sum().backward()
    assert store["ids"].grad is None
    assert store["ids"].why["grad"] == "not differentiable: int64"


def test_gradients_arrive_through_autograd_grad_too():
    model, x = nn.Sequential(nn.Linear(3, 3), nn.Tanh()), torch.randn(2, 3)
    with grads(model) as store:
        torch.autograd.grad(model(x).sum(), model[0].weight)
    assert store["1"].grad.eq(1).all()


def test_passes_add_up_backward_twice_double_backward_and_a_gradient_penalty():
    model, x = nn.Linear(3, 3), torch.randn(2, 3, requires_grad=True)
    with grads(model) as store:
        output = model(x)
        output.sum().backward(retain_graph=True)
        (2 * output).sum().backward()
    assert store[""].grad.eq(3).all()
    with grads(model) as store:
        output = model(x).pow(2).sum()
        (first,) = torch.autograd.grad(output, x, create_graph=True)
        (output + first.pow(2).sum()).backward()
    value = model(x).detach().requires_grad_()
    again = value.pow(2).sum()
    (direct,) = torch.autograd.grad(again, value, create_graph=True)
    penalty = (direct @ model.weight).pow(2).sum()
    (second,) = torch.autograd.grad(again + penalty, value)
    assert torch.allclose(store[""].grad, direct + second)


def test_a_value_used_twice_has_one_summed_gradient():
    model = zoo.Function(lambda s, x: s.a(x) * 2 + s.a(x) * 0 + (h := s.b(x)) + 3 * h, a=nn.Linear(3, 3), b=nn.Linear(3, 3))
    with grads(model) as store:
        model(torch.randn(2, 3)).sum().backward()
    assert store["b"].grad.eq(4).all()
    assert [g.unique().item() for g in store.all("a:grad")] == [2, 0]


def test_an_unused_output_is_none_and_the_users_backward_goes_on():
    model = zoo.Function(lambda s, x: s.fork(x)[0].sum(), fork=zoo.Function(lambda s, x: torch.unbind(x * 2)))
    x = torch.randn(2, 3, requires_grad=True)
    with grads(model, "fork") as store:
        model(x).backward()
    assert x.grad[0].eq(2).all()
    assert store["fork"].grad[0].eq(1).all()
    assert store["fork"].grad[1] is None or store["fork"].grad[1].eq(0).all()


def test_not_reached_is_not_zero_and_a_late_backward_is_neither():
    model = zoo.Function(lambda s, x: (s.a(x), s.b(x) * 0), a=nn.Linear(3, 3), b=nn.Linear(3, 3))
    with grads(model) as store:
        one, two = model(torch.randn(2, 3))
        one.sum().backward()
    assert store["b"].grad is None
    assert "not reached by the loss" in store["b"].why["grad"]
    with grads(model) as store:
        one, two = model(torch.randn(2, 3))
        (one.sum() + two.sum()).backward()
    assert store["b"].grad.eq(0).all()
    with grads(model) as store:
        one, two = model(torch.randn(2, 3))
    one.sum().backward()
    assert store["a"].grad is None
    assert "backward did not run inside the block" in store["a"].why["grad"]


@pytest.mark.parametrize("kind", ["flatten", "mha", "conv"])
def test_a_view_written_in_place_gives_the_gradient_at_its_base_or_the_reason(kind):
    parts = {
        "flatten": (nn.Sequential(nn.Linear(4, 4), nn.Unflatten(1, (2, 2))), torch.randn(3, 4)),
        "mha": (
            zoo.Function(lambda s, x: s.m(x, x, x)[0], m=nn.MultiheadAttention(4, 2, batch_first=True)),
            torch.randn(2, 3, 4),
        ),
        "conv": (nn.Conv2d(1, 2, 2), torch.randn(1, 4, 4)),
    }
    inner, x = parts[kind]
    model = zoo.Function(lambda s, x: s.inner(x).mul_(3).pow(2).sum(), inner=inner)
    with grads(model, "inner") as store:
        model(x).backward()
    value = inner(x).detach().clone().requires_grad_()
    (value * 3).pow(2).sum().backward()
    assert torch.allclose(store["inner"].grad, value.grad)


VIEWS = {
    "transposed": lambda y: y.t(),
    "every second": lambda y: y[1:, ::2],
    "diagonal": lambda y: y.diagonal(),
    "real and imaginary": torch.view_as_real,
    "imaginary": lambda y: y.imag,
    "conjugate": lambda y: y.conj(),
    "negative": lambda y: y.conj().imag,
    "turned": lambda y: torch.view_as_real(y).transpose(0, 2)[1],
}


@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)
@pytest.mark.parametrize("followed", [True, False], ids=["a module later", "nothing later"])
@pytest.mark.parametrize("where", ["", "whole", "*"])
def test_a_view_of_any_kind_that_is_written_to_has_its_own_gradient_or_says_so(view, followed, where):
    """The part answers with a view of its own, and whole with a view of what another module answered with."""
    parts = {"begin": zoo.Function(lambda s, x: x * 1), "view": zoo.Function(lambda s, x: view(x)), "end": nn.Tanh()}
    model = zoo.Function(lambda s, x: s.whole(x), whole=zoo.Function(lambda s, x: s.view(s.begin(x)), **parts))
    x = torch.randn(3, 3, dtype=torch.complex64, requires_grad=True)
    with grads(model, where) as store:
        seen = model(x)
        seen.mul_(3)
        (model.whole.end(seen) if followed else seen).abs().square().sum().backward()
    value = view(x.detach()).clone().requires_grad_()
    (torch.tanh(value * 3) if followed else value * 3).abs().square().sum().backward()
    for path, call in store.items():
        if path in ("", "whole", "whole.view"):
            assert call.grad is not None or "overwritten in place" in call.why["grad"]
            assert call.grad is None or torch.allclose(call.grad, value.grad, atol=1e-6), path
    assert where == "*" or store[where].grad is not None


def test_an_output_that_is_the_input_carries_the_whole_gradient_and_is_flagged():
    model = zoo.Function(lambda s, x: s.same(x) * 2 + x, same=nn.Identity())
    with grads(model, "same") as store:
        model(torch.randn(2, 3, requires_grad=True)).sum().backward()
    assert store["same"].grad.eq(3).all()
    assert "shared with the input" in store["same"].why["grad"]


def test_gradients_of_a_shared_module_find_their_calls_although_they_come_in_reverse_order():
    model = zoo.Function(lambda s, x: s.a(s.a(x) * 2).sum() + 0 * s.a(x.detach()).sum(), a=nn.Linear(3, 3))
    with grads(model, "a") as store:
        model(torch.randn(2, 3)).backward()
    first, second, third = store.all("a:grad")
    assert second.eq(1).all()
    assert third.eq(0).all()
    assert torch.allclose(first, 2 * torch.ones(2, 3) @ model.a.weight)


def test_sparse_and_complex_gradients_are_kept_as_they_are():
    model = nn.Linear(3, 3, dtype=torch.complex64)
    with grads(model, kinds=("output", "grad")) as store:
        model(torch.randn(2, 3, dtype=torch.complex64)).abs().sum().backward()
    assert store[""].grad.is_complex()
    table = zoo.Function(
        lambda s, x: s.weight(x).weight, weight=zoo.Function(lambda s, x: s.e, e=nn.Embedding(4, 2, sparse=True))
    )
    assert table(0).shape == (4, 2)


def test_a_scaled_gradient_is_kept_as_it_is_and_labelled():
    model, x = nn.Linear(3, 3), torch.randn(2, 3)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    with grads(model) as store:
        scaler.scale(model(x).sum()).backward()
        plain = torch.amp.GradScaler.scale
    assert store[""].grad.eq(1024).all()
    assert "scaled by GradScaler (1024x)" in store[""].why["grad"]
    assert "GradScaler" in store.coverage[""].notes["grad"]
    assert torch.amp.GradScaler.scale is plain.__wrapped__
    with grads(model) as store:
        model(x).sum().backward()
    assert "grad" not in store[""].why


def test_two_names_for_one_module_find_one_value():
    model, x = zoo.make("shared")
    with grads(model, "*", ("output", "grad")) as store:
        zoo.loss_of(model(x)).backward()
    assert torch.equal(store["b@1"].output, store["a@1"].output)
    with capture(model, "b") as store:
        model(x)
    assert torch.equal(store["a@0"].output, store["b@0"].output)


def test_tapped_gradients_are_events_one_for_each_leaf_and_pass():
    events = []
    model = nn.Linear(3, 3)
    with tap(model, "", events.append, what=("input", "output", "grad")):
        output = model(torch.randn(2, 3))
        output.sum().backward(retain_graph=True)
        output.sum().backward()
    assert [str(e.site) for e in events] == ["@0:input", "@0", "@0:grad", "@0:grad"]
    assert events[1].value is output
    assert events[0].module is model


@pytest.mark.parametrize("reentrant", [True, False])
def test_a_checkpointed_call_is_one_call_with_the_right_gradient(reentrant):
    parts = {"a": nn.Linear(3, 3), "b": nn.Linear(3, 3)}

    def forward(self, x):
        return checkpoint(lambda y: self.b(torch.tanh(self.a(y))), x, use_reentrant=reentrant)

    model = zoo.Function(forward, **parts)
    x = torch.randn(2, 3, requires_grad=True)
    with grads(model, "*", ("output", "grad", "input")) as store:
        model(x).pow(2).sum().backward()
    assert list(store) == ["", "a", "b"]
    plain = zoo.Function(lambda s, x: s.b(torch.tanh(s.a(x))), **parts)
    with grads(plain, "*", ("output", "grad")) as expected:
        plain(x).pow(2).sum().backward()
    for name in "ab":
        assert torch.equal(store[name].output, expected[name].output)
        assert torch.allclose(store[name].grad, expected[name].grad)


def test_a_users_forward_inside_a_backward_hook_is_a_new_call():
    model = nn.Linear(3, 3)
    x = torch.randn(2, 3, requires_grad=True)
    with capture(model) as store:
        y = x * 2
        y.register_hook(lambda g: (model(g), None)[1])
        model(y).sum().backward()
    assert list(store) == ["@0", "@1"]


def test_the_gradient_of_an_input_that_is_a_view_written_to_before():
    def forward(self, x):
        y = self.a(x).view(2, 12)
        y.add_(1)
        y[0] = 0  # torch 2.8 to 2.14 crash where a hook is the first to ask such a view for its node
        return self.b(y)

    model = zoo.Function(forward, a=nn.Linear(6, 6), b=nn.Tanh())
    with capture(model, "b", what=("output", "grad_input")) as store:
        model(torch.randn(4, 6)).sum().backward()
    assert torch.equal(store.at("b:grad_input"), torch.ops.aten.tanh_backward(torch.ones(2, 12), store["b"].output))
