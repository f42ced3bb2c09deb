"""Values that change after you looked (hard cases 1 to 10), each against a clone taken by hand."""

import numpy as np
import pytest
import torch
import zoo
from torch import nn

from inspector import borrow, capture, edit, live, offload, snapshot
from inspector.hooks import OverwrittenError
from inspector.tensors import walk


def overwritten():
    return nn.Sequential(nn.Linear(3, 3), nn.ReLU(inplace=True)), torch.randn(2, 3)


@pytest.mark.parametrize("keep", [snapshot, offload])
def test_a_copy_is_exact_although_the_next_module_overwrites_the_value(keep):
    model, x = overwritten()
    with capture(model, "0", keep=keep) as store:
        model(x)
    assert torch.equal(store["0"].output, nn.functional.linear(x, model[0].weight, model[0].bias))


@pytest.mark.parametrize("part", [lambda t: t, lambda t: t[:, -1], lambda t: {"a": t.T}, lambda t: t.detach().numpy()])
def test_a_function_that_keeps_a_view_keeps_a_copy_of_what_it_saw(part):
    model, x = overwritten()
    with capture(model, "0", keep=part) as store:
        model(x)
    expected, kept = part(model[0](x)), store["0"].output
    if isinstance(expected, dict):
        expected, kept = expected["a"], kept["a"]
    assert np.array_equal(torch.as_tensor(kept), torch.as_tensor(expected).detach())


def test_a_slice_that_a_function_keeps_holds_no_more_than_itself():
    model = nn.Linear(3, 1000)
    with capture(model, keep=lambda t: t[:, :2]) as store:
        model(torch.randn(4, 3))
    assert store[""].output.untyped_storage().nbytes() == 4 * 2 * 4


@pytest.mark.parametrize("keep", [borrow, live])
def test_a_borrowed_value_raises_when_it_was_overwritten_and_names_the_cure(keep):
    model, x = overwritten()
    with capture(model, keep=keep) as store:
        model(x)
    with pytest.raises(OverwrittenError, match="keep=snapshot"):
        store["0"].output
    assert torch.equal(store["1"].output, model(x))
    assert "overwritten" in repr(store)


def test_borrow_takes_no_memory_and_live_stays_on_the_graph():
    model, x = nn.Linear(3, 3), torch.randn(2, 3)
    with capture(model, keep=borrow) as borrowed, capture(model, keep=live) as alive:
        output = model(x)
    assert borrowed[""].output.data_ptr() == output.data_ptr()
    assert not borrowed[""].output.requires_grad
    assert alive[""].output is output


def test_the_input_of_an_in_place_module_is_taken_before_the_call():
    model, x = overwritten()
    with capture(model, "1", what=("input", "output")) as store:
        model(x)
    assert (store["1"].input["input"] < 0).any()
    assert (store["1"].output >= 0).all()
    assert torch.equal(store["1"].input[0], store.at("1:input[input]"))
    assert torch.equal(store.at("1:input"), store.at("1:input[0]"))


def test_a_view_is_exact_although_its_base_is_written_to():
    model = zoo.Function(lambda s, x: (s.flat(y := s.a(x)), y.zero_())[0], a=nn.Linear(3, 3), flat=nn.Flatten(0))
    x = torch.randn(2, 3)
    with capture(model, "flat") as store:
        result = model(x)
    assert result.eq(0).all()
    assert torch.equal(store["flat"].output, model.a(x).flatten())


def test_an_output_that_is_the_input_is_one_value_at_several_sites_and_an_edit_at_one_leaves_the_other():
    model, x = nn.Sequential(nn.Identity(), nn.Identity()), torch.randn(2, 3)
    with capture(model) as store:
        model(x)
    assert torch.equal(store["0"].output, x)
    with edit(model, {"1": lambda t: t + 1}), capture(model) as store:
        model(x)
    assert torch.equal(store["0"].output, x)
    assert torch.equal(store["1"].output, x + 1)
    assert torch.equal(store[""].output, x + 1)


def held_by_a_function(values):
    return lambda _: values


@pytest.mark.parametrize("put", [lambda values: values, held_by_a_function], ids=["a tensor", "a function that holds it"])
@pytest.mark.parametrize("shape", [(2, 3), (3,)])
def test_what_an_edit_puts_in_is_not_overwritten_by_the_next_module(put, shape):
    (model, x), values = overwritten(), torch.randn(shape)
    before = values.clone()
    with edit(model, {"0": put(values)}):
        for _ in range(2):
            assert torch.equal(model(x), before.relu().expand(2, 3))
    assert torch.equal(values, before)


def test_a_patch_from_a_store_leaves_the_store_as_it_was():
    model, x = overwritten()
    with capture(model) as store:
        model(x)
    before = store["0"].output.clone()
    with torch.no_grad(), edit(model, {"0": store["0"].output}):
        model(-x)
    assert torch.equal(store["0"].output, before)


def zeroed(tensor):
    return tensor.zero_()


def test_an_edit_that_works_in_place_reaches_its_own_site_only():
    parts = {"i": nn.Identity(), "a": nn.Linear(3, 3), "place": zoo.Function(lambda s, x: s.where[:2])}
    parts["place"].where = nn.Parameter(torch.ones(4, 3))
    model, x = zoo.Function(lambda s, x: s.i(x) + s.a(x) + s.place(x) + x, **parts), torch.ones(2, 3, requires_grad=True)
    with edit(model, {"i": zeroed, "place": zeroed, "a:input": zeroed}):
        output = model(x)
    assert torch.equal(output, parts["a"].bias + torch.ones(2, 3))
    assert parts["place"].where.eq(1).all()
    assert x.eq(1).all()


def test_a_slice_is_kept_without_the_storage_it_was_cut_from(tmp_path):
    model = zoo.Function(lambda s, x: s.cut(x), cut=zoo.Function(lambda s, x: x[:1, :16]))
    with capture(model, "cut") as store:
        model(torch.randn(100, 1000))
    assert store["cut"].output.untyped_storage().nbytes() == 64
    assert store.save(tmp_path / "slice.safetensors").stat().st_size < 4000


def test_a_captured_parameter_stays_as_it_was_when_the_optimizer_steps():
    model = zoo.Function(lambda s, x: s.weight(x), weight=zoo.Function(lambda s, x: s.linear.weight, linear=nn.Linear(3, 3)))
    weight = model.weight.linear.weight
    with capture(model, "weight", what=("output", "grad")) as store:
        model(torch.ones(1, 3)).sum().backward()
    before = weight.detach().clone()
    with torch.no_grad():
        weight.add_(1)
    assert torch.equal(store["weight"].output, before)
    assert torch.equal(store["weight"].grad, torch.ones(3, 3))


@pytest.mark.parametrize("keep", [snapshot, borrow, live])
def test_inference_mode_works_and_a_gradient_asked_of_it_is_none_with_the_reason(keep):
    model, x = overwritten()
    with capture(model, what=("output", "grad"), keep=keep) as store, torch.inference_mode():
        model(x)
        assert torch.equal(store["1"].output, model[0](x).relu()) if keep is snapshot else True
    assert store["1"].grad is None
    assert "inference mode" in store["1"].why["grad"]
    with pytest.raises(LookupError, match="inference mode"):
        store.at("1:grad")


def test_a_capture_does_not_keep_the_graph_alive():
    model, x = nn.Linear(3, 3), torch.randn(2, 3)
    with capture(model, what=("output", "input", "grad")) as store:
        output = model(x)
        torch.autograd.grad(output.pow(2).sum(), model.weight, create_graph=True)
    assert store[""].output.grad_fn is None
    assert not store[""].grad.requires_grad
    with capture(model, what="grad", keep=live) as store:
        torch.autograd.grad((model(x) ** 3).sum(), model.weight, create_graph=True)
    assert store[""].grad.requires_grad


def test_writing_into_what_was_handed_out_does_not_change_the_run():
    model, x = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3)), torch.randn(2, 3)
    expected = model(x)
    store_now = {}

    def vandal(module, args):
        store_now["store"]["0"].output.zero_()

    handle = model[1].register_forward_pre_hook(vandal)
    with capture(model) as store:
        store_now["store"] = store
        assert torch.equal(model(x), expected)
    handle.remove()


def test_any_function_of_a_tensor_decides_what_is_kept():
    model, x = nn.Sequential(nn.Linear(3, 3), nn.ReLU()), torch.randn(2, 3)
    with capture(model, what=("output", "grad"), keep=lambda t: t.mean(0)) as store:
        model(x).sum().backward()
    assert torch.equal(store["0"].output, model[0](x).mean(0))
    assert store["0"].grad.shape == (3,)
    with capture(model, keep=lambda t: None) as store:
        model(x)
    assert store["0"].output is None
    with pytest.raises(LookupError, match="dropped"):
        store.at("0")


def test_numpy_views_of_a_snapshot_are_private():
    model, x = nn.Identity(), torch.randn(2, 3)
    with capture(model) as store:
        model(x)
    np.asarray(store[""].output)[:] = 0
    assert not x.eq(0).any()


def test_a_budget_stops_with_the_largest_sites_named_and_leaves_no_hook():
    model, x = nn.Sequential(nn.Linear(3, 1000), nn.Linear(1000, 2)), torch.randn(10, 3)
    with pytest.raises(MemoryError, match=r"largest are 0@0 40,000 B"), capture(model, budget="20 kB"):
        model(x)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    with pytest.raises(ValueError, match="2 GiB"), capture(model, budget="a lot"):
        pass
    with capture(model, budget="1 MiB") as store:
        model(x)
    assert len(store) == 3


def test_what_a_function_keeps_is_off_the_graph_and_does_not_hold_it():
    model = nn.Sequential(nn.Linear(3, 3), nn.ReLU())
    with capture(model, keep=lambda t: (t.mean(), {"max": t.amax(0)})) as store:
        model(torch.ones(2, 3))
    assert not any(t.requires_grad for name in store for _, t in walk(store[name].output))
    with capture(model, keep=torch.mean) as store:
        model(torch.ones(2, 3))
    assert not store["0"].output.requires_grad
