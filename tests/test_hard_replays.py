"""Edits of checkpointed calls whose backward comes later, or again (hard case 34): as in the model without checkpoints."""

import gc
import threading
import weakref
from functools import partial

import pytest
import torch
import zoo
from test_hard_checkpoints import DEEPEST, in_region, modes, nested, nestings, ones, part
from torch import nn
from torch.utils.checkpoint import checkpoint

from inspector import capture, edit
from inspector.hooks.reads import Reads

pytestmark = pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")  # torch's, of nested regions


def grads(model, x):
    """The gradients of the model's parameters and of x, taken away."""
    found = [None if t.grad is None else t.grad.clone() for t in (x, *model.parameters())]
    model.zero_grad()
    x.grad = None
    return found


def passes_after(model, changes, inside=0, outside=1):
    """The gradients of every backward pass of one run, the first ones in the block that edits it."""
    found, x = [], ones()
    with edit(model, changes):
        loss = model(x).square().sum()
        for _ in range(inside):
            loss.backward(retain_graph=True)
            found.append(grads(model, x))
    for left in reversed(range(outside)):
        loss.backward(retain_graph=left > 0)
        found.append(grads(model, x))
    return found


def square(t):
    return t * t


@nestings
@pytest.mark.parametrize(("inside", "outside"), [(1, 1), (0, 2)])
def test_an_edit_is_replayed_in_every_backward_also_after_its_block(nesting, inside, outside):
    changes = {f"{DEEPEST[len(nesting) - 1]}.0": square, "b:input": lambda t: t + 1}
    found, expected = (passes_after(nested(nesting, on), changes, inside, outside) for on in (True, False))
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(found[0], found[1])


@nestings
def test_each_run_is_recomputed_with_the_edits_that_it_had(nesting):
    """One without any, two with edits of the same site, one of them with a second edit around it; in reverse order."""
    site = f"{DEEPEST[len(nesting) - 1]}.0"

    def losses(model, x):
        yield model(x).square().sum()
        with edit(model, {site: square}):
            yield model(x).square().sum()
            with edit(model, {site: lambda t: t + 1}):  # after the other: not (t + 1) squared
                yield model(x).square().sum()
        with edit(model, {site: lambda t: t.cos()}):
            yield model(x).square().sum()

    def all_grads(model):
        x = ones()
        waiting, found = list(losses(model, x)), []
        with edit(model, {site: lambda t: t * 5}):  # of none of these runs
            for loss in reversed(waiting):
                loss.backward()
                found.append(grads(model, x))
        return found

    torch.testing.assert_close(all_grads(nested(nesting)), all_grads(nested(nesting, False)))


@modes
@pytest.mark.parametrize("call", [0, 1, 2])
def test_one_named_call_of_a_shared_module_is_the_one_that_is_replayed(reentrant, call):
    def forward(model, x):
        return model.a(torch.sin(model.a(torch.cos(model.a(x)))))

    found, expected = (
        passes_after(in_region(forward, reentrant, on, a=part), {f"a@{call}": square}, 1, 1) for on in (True, False)
    )
    torch.testing.assert_close(found, expected)


@modes
def test_one_named_call_is_found_among_regions_that_are_recomputed_in_reverse(reentrant):
    def forward(model, x, on=True):
        for _ in range(3):
            x = torch.sin(checkpoint(model.a, x, use_reentrant=reentrant) if on else model.a(x))
        return x

    torch.manual_seed(0)
    shared = part()
    saving, plain = zoo.Function(forward, a=shared), zoo.Function(lambda s, x: forward(s, x, False), a=shared)
    for call in range(3):
        found, expected = (passes_after(model, {f"a@{call}": square}, 1, 1) for model in (saving, plain))
        torch.testing.assert_close(found, expected)


@modes
def test_calls_are_counted_anew_in_each_run_of_the_model_inside_one_region(reentrant):
    torch.manual_seed(0)
    model, x = zoo.Function(lambda s, x: s.a(torch.sin(s.a(x))), a=part()), ones()
    found = []
    for on in (True, False):
        with edit(model, {"a@1": square}):
            loss = (checkpoint(lambda y: model(model(y)), x, use_reentrant=reentrant) if on else model(model(x))).sum()
        loss.backward()
        found.append(grads(model, x))
    torch.testing.assert_close(*found)


def test_a_region_that_calls_a_module_more_often_when_it_is_recomputed_is_refused():
    times = [1]

    def forward(model, x):
        for _ in range(times[0]):
            x = model.a(x)
        return x

    model, x = in_region(forward, True, a=part), ones()
    with edit(model, {"a": square}):
        loss = model(x).sum()
    times[0] = 2
    with pytest.raises(RuntimeError, match="recomputes 'a' more often"):
        loss.backward()


@modes
def test_a_change_that_reads_what_was_set_anew_after_its_block_is_refused(reentrant):
    model, losses, x = in_region(lambda s, x: s.b(s.a(x)), reentrant, a=part, b=part), [], ones()
    for scale in (2.0, 3.0):
        with edit(model, {"a": lambda t: t * scale}):  # noqa: B023  # the mistake that is meant
            losses.append(model(x).sum())
    losses[1].backward()
    with pytest.raises(RuntimeError, match=r"'?a'? after its block.*set anew since: scale"):
        losses[0].backward()


@modes
def test_a_tensor_written_to_after_its_block_is_refused(reentrant):
    model, x, put = in_region(lambda s, x: s.b(s.a(x)), reentrant, a=part, b=part), ones(), torch.ones(3)
    with edit(model, {"a": put}):
        loss = model(x).sum()
    put.zero_()
    with pytest.raises(RuntimeError, match="set anew since: the tensor"):
        loss.backward()


@modes
def test_after_a_late_backward_no_hook_is_left_and_nothing_is_kept_alive(reentrant):
    model, x, put = in_region(lambda s, x: s.b(s.a(x)), reentrant, a=part, b=part), ones(), torch.full((3,), 0.5)
    with edit(model, {"a": put, "b.0": square}):
        loss = model(x).sum()
    hooked = [m for m in model.modules() if m._forward_hooks or m._forward_pre_hooks or m._forward_hooks_always_called]
    there = weakref.ref(put)
    del put
    assert there() is not None
    gc.disable()
    try:
        loss.backward()
        del loss
        assert there() is None
    finally:
        gc.enable()
    hooked += [m for m in model.modules() if m._forward_hooks or m._forward_pre_hooks or m._forward_hooks_always_called]
    assert not hooked


@modes
def test_an_edit_that_raises_in_a_late_backward_leaves_no_hook(reentrant):
    model, x, broken = in_region(lambda s, x: s.b(s.a(x)), reentrant, a=part, b=part), ones(), []

    def change(t):
        if broken:
            raise KeyError("broken")
        return t * t

    with edit(model, {"a": change}):
        loss = model(x).sum()
    broken.append(True)
    with pytest.raises(KeyError, match="broken"):
        loss.backward()
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


@modes
def test_a_backward_in_another_thread_replays_the_edit(reentrant):
    found = []
    for on in (True, False):
        model, x = in_region(lambda s, x: s.b(s.a(x)), reentrant, on, a=part, b=part), ones()
        with edit(model, {"a": square}):
            loss = model(x).square().sum()
        thread = threading.Thread(target=loss.backward)
        thread.start()
        thread.join()
        found.append(grads(model, x))
    torch.testing.assert_close(*found)


@modes
def test_a_late_backward_inside_a_capture_gives_it_the_gradients_of_the_edited_run(reentrant):
    found = []
    for on in (True, False):
        model = in_region(lambda s, x: s.b(s.a(x)), reentrant, on, a=part, b=nn.Tanh)
        with capture(model, "*", what=("output", "grad")) as store:
            with edit(model, {"a": square}):
                loss = model(ones()).square().sum()
            loss.backward()
        found.append([(call.output, call.grad) for call in store.values()])
    torch.testing.assert_close(*found)


@pytest.fixture
def compiled_world():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@modes
def test_an_edit_that_is_opened_inside_a_region_is_refused(reentrant):
    def forward(model, x):
        with edit(model, {"a": square}):
            return model.a(x)

    with pytest.raises(RuntimeError, match="inside a checkpointed function"):
        in_region(forward, reentrant, a=part)(ones())
    with torch.no_grad():
        in_region(forward, reentrant, a=part)(ones())


def attention():
    return nn.MultiheadAttention(3, 1, batch_first=True)


@modes
def test_edited_attention_is_replayed_after_its_block(reentrant):
    found = []
    for on in (True, False):
        model = in_region(lambda s, x: s.a(x, x, x)[0], reentrant, on, a=attention)
        found.append(passes_after(model, {"a:attention": lambda w: w.roll(1, -1) * 0.5}, 1, 2))
    torch.testing.assert_close(*found)


@modes
def test_an_edit_inside_a_compiled_part_of_a_region_is_replayed_after_its_block(reentrant, compiled_world):
    found = []
    for on in (True, False):
        model = in_region(lambda s, x: s.b(s.a(x)), reentrant, on, a=part, b=part)
        model.a.compile(backend="eager")
        model(ones())
        found.append(passes_after(model, {"a.0": square}))
    torch.testing.assert_close(*found)


def change_of_a_partial():
    return partial(torch.mul, torch.ones(3))


def change_of_a_method():
    return nn.Tanh().forward


def change_that_reads_nothing_yet():
    change = lambda t: t * later  # noqa: E731  # unbound on purpose
    if False:
        later = 1
    return change


@pytest.mark.parametrize("make", [change_of_a_partial, change_of_a_method, change_that_reads_nothing_yet, part])
def test_what_stays_as_it_is_does_not_count_as_set_anew(make):
    assert not Reads(make()).set_anew()


OUTSIDE = [1]


def test_a_global_an_argument_and_a_list_count_as_set_anew(monkeypatch):
    put = torch.ones(3)
    reads = Reads(lambda t: t * OUTSIDE[0]), Reads(partial(torch.mul, other=put))
    monkeypatch.setitem(globals(), "OUTSIDE", [2])
    put += 1
    assert [r.set_anew() for r in reads] == [["OUTSIDE"], ["other"]]


def test_an_edit_without_gradients_inside_a_region_is_replayed_where_backward_needs_its_value():
    def forward(model, x):
        with torch.no_grad():
            scale = model.a(x)
        return model.b(x) * scale

    found, expected = (passes_after(in_region(forward, False, on, a=part, b=part), {"a": square}) for on in (True, False))
    torch.testing.assert_close(found, expected)
