"""Nested and repeated activation checkpointing (hard case 34): everywhere as in the model without it, or refused."""

import itertools

import pytest
import torch
import zoo
from torch import nn
from torch.utils.checkpoint import checkpoint, checkpoint_sequential

from inspector import capture, edit

pytestmark = pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")  # torch's, of nested regions

KINDS = ("output", "grad", "input", "grad_input")
MODES = {"reentrant": True, "saving": False}
NESTINGS = [modes for depth in (1, 2, 3) for modes in itertools.product(MODES.values(), repeat=depth)]
DEEPEST = "bcd"
nestings = pytest.mark.parametrize("nesting", NESTINGS, ids=str)
modes = pytest.mark.parametrize("reentrant", MODES.values(), ids=MODES)


def part():
    return nn.Sequential(nn.Linear(3, 3), nn.Tanh())


def nested(nesting, checkpointed=True):
    """a, then regions inside each other: b, c and d run at depth 1, 2 and 3."""
    torch.manual_seed(0)

    def region(model, x, depth):
        def run(y):
            y = model.get_submodule(DEEPEST[depth])(y)
            return torch.sin(region(model, y, depth + 1) if depth + 1 < len(nesting) else y)

        return checkpoint(run, x, use_reentrant=nesting[depth]) if checkpointed else run(x)

    return zoo.Function(lambda s, x: region(s, s.a(x), 0), **{name: part() for name in "abcd"})


def in_region(function, reentrant, checkpointed=True, **parts):
    """One region around ``function(model, x)``."""
    torch.manual_seed(0)
    made = {name: build() for name, build in parts.items()}
    return zoo.Function(
        lambda s, x: checkpoint(lambda y: function(s, y), x, use_reentrant=reentrant) if checkpointed else function(s, x),
        **made,
    )


def ones():
    return torch.ones(2, 3, requires_grad=True)


def seen(model, kinds=KINDS, passes=1):
    """Two runs in one block, each with ``passes`` backward passes."""
    with capture(model, "*", what=kinds) as store:
        for scale in (1.0, 0.5):
            loss = model(ones() * scale).square().sum()
            for left in reversed(range(passes)):
                loss.backward(retain_graph=left > 0)
    return store


def assert_same(store, expected, kinds=KINDS):
    assert list(store) == list(expected)
    for site, kind in itertools.product(expected, kinds):
        torch.testing.assert_close(getattr(store[site], kind), getattr(expected[site], kind), msg=f"{site}:{kind}")


def edited(model, deepest):
    x = ones()
    with edit(model, {f"{deepest}.0": lambda t: t * 2, "b:input": lambda t: t + 1}):
        y = model(x)
        y.sum().backward()
    return [y, x.grad, *(p.grad for p in model.parameters() if p.grad is not None)]


@nestings
def test_nested_regions_have_the_values_and_gradients_of_the_plain_model_over_all_passes(nesting):
    assert_same(seen(nested(nesting), passes=2), seen(nested(nesting, False), passes=2))


@nestings
def test_a_gradient_of_nested_regions_that_did_not_come_says_that_backward_did_not_run(nesting):
    model = nested(nesting)
    with capture(model, "*", what="grad") as store:
        model(ones())
    assert store[DEEPEST[len(nesting) - 1]].why["grad"] == "backward did not run inside the block"


@nestings
def test_an_edit_inside_nested_regions_is_replayed_in_every_pass(nesting):
    deepest = DEEPEST[len(nesting) - 1]
    torch.testing.assert_close(edited(nested(nesting), deepest), edited(nested(nesting, False), deepest))


@nestings
def test_a_run_from_before_the_block_is_recomputed_without_the_edit_and_gives_no_gradient_to_a_capture(nesting):
    def grads_of(model, site):
        x = ones()
        early = model(x)
        with edit(model, {site: lambda t: t * 2}), capture(model, "*", what="grad") as store:
            late = model(ones() * 0.5)
            early.sum().backward()
            late.square().sum().backward()
        return store, x.grad

    site = f"{DEEPEST[len(nesting) - 1]}.0"
    (store, grad), (expected, plain) = grads_of(nested(nesting), site), grads_of(nested(nesting, False), site)
    torch.testing.assert_close(grad, plain)
    assert_same(store, expected, ("grad",))


@modes
@pytest.mark.parametrize("build", [lambda: nn.Linear(3, 3), part])
def test_two_calls_of_a_module_in_one_region_are_two_calls(reentrant, build):
    def twice(model, x):
        return model.a(torch.sin(model.a(x)))

    store, expected = (seen(in_region(twice, reentrant, on, a=build), ("output", "grad", "input")) for on in (True, False))
    assert_same(store, expected, ("output", "grad", "input"))


@modes
@pytest.mark.parametrize("passes", [1, 2])
def test_a_module_shared_by_nested_and_neighbouring_regions_has_the_gradients_of_each_call(reentrant, passes):
    def forward(model, x, on):
        def region(function, y):
            return checkpoint(function, y, use_reentrant=reentrant) if on else function(y)

        for _ in range(2):
            x = region(lambda y: region(model.a, torch.sin(region(model.a, model.a(y)))) * y, x)
        return model.a(x)

    torch.manual_seed(0)
    shared = part()
    found, expected = (
        seen(zoo.Function(lambda s, x, on=on: forward(s, x, on), a=shared), passes=passes) for on in (True, False)
    )
    assert_same(found, expected)


@modes
def test_a_call_with_its_own_gradients_inside_a_region_is_not_taken_for_another(reentrant):
    def forward(model, x):
        y = model.b(x)
        with torch.enable_grad():
            z = model.a(y.detach().requires_grad_())
        return model.a(torch.sin(y)) + z.detach()

    store, expected = (seen(in_region(forward, reentrant, on, a=part, b=part)) for on in (True, False))
    assert_same(store, expected)


@modes
def test_the_gradient_of_a_module_that_answers_with_the_regions_own_input_counts_once(reentrant):
    def forward(model, x):
        return model.b(model.i(x))

    store, expected = (seen(in_region(forward, reentrant, on, i=nn.Identity, b=part)) for on in (True, False))
    assert_same(store, expected)


@modes
def test_a_view_of_the_regions_own_input_and_a_call_without_gradients_have_what_they_have_outside(reentrant):
    def forward(model, x):
        with torch.no_grad():
            scale = model.a(model.v(x))
        return model.b(torch.sin(model.v(x)) * scale) + model.v(x)

    parts = {"a": part, "b": part, "v": lambda: zoo.Function(lambda s, x: x.view_as(x))}
    store, expected = (seen(in_region(forward, reentrant, on, **parts)) for on in (True, False))
    assert_same(store, expected)
    assert [call.why.get("grad") for call in store.values()] == [call.why.get("grad") for call in expected.values()]
    assert "no_grad" in store["v@0"].why["grad"]


@modes
def test_segments_of_checkpoint_sequential_are_seen_also_without_gradients(reentrant):
    layers = nn.Sequential(*(part() for _ in range(5)))
    model = zoo.Function(lambda s, x: checkpoint_sequential(s.a, 2, x, use_reentrant=reentrant), a=layers)
    plain = zoo.Function(lambda s, x: s.a(x), a=layers)
    assert_same(*(seen_layers(m) for m in (model, plain)), ("output", "grad"))
    with torch.no_grad(), capture(model, "a.*", what=("output", "grad")) as store:
        model(ones())
    assert "no_grad" in store["a.4"].why["grad"]


def seen_layers(model):
    with capture(model, "a.*", what=("output", "grad")) as store:
        model(ones()).square().sum().backward()
    return store


@modes
def test_an_edit_of_the_call_at_which_a_recomputation_stops_early_is_not_refused(reentrant):
    model = in_region(lambda s, x: s.b(s.a(x)), reentrant, a=part, b=nn.Tanh)
    with edit(model, {"b": lambda t: t * 2}):
        model(ones()).sum().backward()


def test_a_call_without_gradients_inside_a_region_has_none_and_says_so():
    def forward(model, x):
        with torch.no_grad():
            scale = model.a(x)
        return model.b(x) * scale

    assert "no_grad" in seen(in_region(forward, False, a=part, b=part))["a@0"].why["grad"]
