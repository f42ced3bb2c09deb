"""The law sheet of capture: over every model of the zoo and the reference models, whatever their kind."""

import copy
import pickle
from functools import partial

import pytest
import torch
import zoo
from torch import nn

from inspector import capture, models
from inspector.hooks import borrow, live
from inspector.tensors import walk

REFERENCE = {
    "cnn": lambda: (models.CNN(), torch.randn(2, 1, 28, 28)),
    "lstm_classifier": lambda: (models.LSTMClassifier(), torch.randn(2, 28, 28)),
    "attention_classifier": lambda: (models.AttentionClassifier(), torch.randn(2, 28, 28)),
}
ALL = [*zoo.NAMES, *REFERENCE]


def build(name):
    return REFERENCE[name]() if name in REFERENCE else zoo.make(name)


def oracle(model, x):
    """What raw hooks see: a clone of each output tensor, and the gradient through a tensor hook, call by call."""
    outputs, grads, handles = {}, {}, []

    def see(path, module, args, output):
        index = sum(1 for key in outputs if key[0] == path)
        outputs[path, index] = [(leaf, t.detach().clone()) for leaf, t in walk(output)]
        for leaf, t in walk(output):
            if t.requires_grad:
                handles.append(t.register_hook(partial(add, (path, index, leaf))))

    def add(key, grad):
        if grad is not None:
            grads[key] = grads.get(key, 0) + grad.clone()

    for path, module in model.named_modules():
        if ".parametrizations" not in path:
            handles.append(module.register_forward_hook(partial(see, path)))
    run_backward(model, x)
    for handle in handles:
        handle.remove()
    return outputs, grads


def run_backward(model, x):
    torch.manual_seed(3)
    loss = zoo.loss_of(model(x))
    if loss.requires_grad:
        loss.backward()
    return loss


def state(model):
    """Everything of a model that looking must leave alone."""
    hooks = [(len(m._forward_hooks), len(m._forward_pre_hooks), len(m._backward_hooks)) for m in model.modules()]
    modes = [m.training for m in model.modules()]
    tensors = [t.clone() for t in [*model.parameters(), *model.buffers()]]
    return hooks, modes, [p.requires_grad for p in model.parameters()], tensors, [sorted(vars(m)) for m in model.modules()]


def same(one, other):
    return one[:3] == other[:3] and one[4] == other[4] and all(map(torch.equal, one[3], other[3]))


@pytest.mark.parametrize("name", ALL)
def test_every_captured_output_is_what_a_raw_clone_hook_sees(name):
    model, x = build(name)
    expected, _ = oracle(copy.deepcopy(model), x)
    with capture(model) as store:
        run_backward(model, x)
    seen = {}
    for call in store.values():
        seen[call.site.path, sum(1 for k in seen if k[0] == call.site.path)] = list(walk(call.output))
    if name != "recursion":  # there the raw hook counts calls as they end, the store as they begin
        assert seen.keys() == expected.keys()
    for path in {k[0] for k in expected}:
        ours = sorted(str(t) for k, v in seen.items() if k[0] == path for t in v)
        assert ours == sorted(str(t) for k, v in expected.items() if k[0] == path for t in v)


@pytest.mark.parametrize("name", [n for n in ALL if n not in ("views", "chunked", "recursion")])
def test_every_captured_gradient_is_what_a_raw_tensor_hook_sees(name):
    model, x = build(name)
    _, expected = oracle(copy.deepcopy(model), x)
    with capture(model, what="grad") as store:
        run_backward(model, x)
    for (path, index, leaf), grad in expected.items():
        call = store.calls(path)[index]
        assert torch.equal(dict(walk(call.grad))[leaf], grad), (path, index, leaf)
    for call in store.values():
        for leaf, _ in walk(call.grad):
            assert (call.site.path, call.site.call, leaf) in expected


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("keep", ["snapshot", "borrow", "live", "mean"])
def test_looking_changes_neither_the_outputs_nor_the_gradients_nor_the_state(name, keep):
    keeps = {"snapshot": {}, "borrow": {"keep": borrow}, "live": {"keep": live}, "mean": {"keep": lambda t: t.sum()}}
    model, x = build(name)
    twin = copy.deepcopy(model)
    expected = run_backward(twin, x)
    before = state(model)
    with capture(model, what=("output", "input", "grad", "grad_input"), **keeps[keep]) as store:
        loss = run_backward(model, x)
    del store
    assert torch.equal(loss, expected)
    for one, other in zip(model.parameters(), twin.parameters(), strict=True):
        assert (one.grad is None) == (other.grad is None)
        assert one.grad is None or torch.equal(one.grad, other.grad)
    assert same(state(model), state(twin))
    assert before[0] == state(model)[0]
    assert before[4] == state(model)[4]


@pytest.mark.parametrize("name", ALL)
def test_the_random_stream_goes_on_as_without_looking(name):
    model, x = build(name)
    twin = copy.deepcopy(model)
    run_backward(twin, x)
    expected = torch.get_rng_state()
    with capture(model, what=("output", "grad")):
        run_backward(model, x)
    assert torch.equal(torch.get_rng_state(), expected)


@pytest.mark.parametrize("name", ALL)
def test_no_hook_outlives_the_block_also_when_it_raises(name):
    model, x = build(name)
    before = state(model)

    outputs = []
    with pytest.raises(KeyboardInterrupt):
        run_and_stop(model, x, outputs)
    assert state(model)[0] == before[0]
    assert all(not t._backward_hooks for _, t in walk(outputs))


def run_and_stop(model, x, outputs):
    with capture(model, what=("output", "grad")):
        outputs.append(model(x))
        raise KeyboardInterrupt


@pytest.mark.parametrize("name", ALL)
def test_every_chosen_module_ran_or_the_coverage_says_why_not(name):
    model, x = build(name)
    with capture(model) as store:
        model(x)
    ran = {call.site.path for call in store.values()}
    for path, status in store.coverage.items():
        assert (path in ran) == (status.calls > 0) == (status.reason is None)


@pytest.mark.parametrize("name", ALL)
def test_every_missing_gradient_has_a_reason(name):
    model, x = build(name)
    with capture(model, what="grad") as store:
        run_backward(model, x)
    for call in store.values():
        present = sum(1 for _ in walk(call.grad))
        if not present:
            assert call.why.get("grad"), call.site


@pytest.mark.parametrize("name", ALL)
def test_a_store_comes_back_from_disk_as_it_was(name, tmp_path):
    model, x = build(name)
    with capture(model, what=("output", "grad", "input")) as store:
        run_backward(model, x)
    loaded = type(store).load(store.save(tmp_path / "run.safetensors"))
    assert list(loaded) == list(store)
    for key in store:
        for kind in store.kinds:
            ours, theirs = list(walk(getattr(store[key], kind))), list(walk(getattr(loaded[key], kind)))
            assert [leaf for leaf, _ in ours] == [leaf for leaf, _ in theirs]
            assert all(torch.equal(a, b) for (_, a), (_, b) in zip(ours, theirs, strict=True))
    assert repr(loaded.coverage) == repr(store.coverage)


@pytest.mark.parametrize("name", ["in_place", "norms"])
def test_a_model_copies_and_pickles_before_during_and_after_a_capture(name):
    model, x = build(name)
    model.eval()
    expected = model(x)
    with capture(model) as store:
        inside = [copy.deepcopy(model), pickle.loads(pickle.dumps(model))]
        for twin in inside:
            assert torch.equal(twin(x), expected)
        assert len(store) == 0
    for twin in [*inside, copy.deepcopy(model), pickle.loads(pickle.dumps(model))]:
        assert torch.equal(twin(x), expected)


def test_a_module_list_is_named_as_a_container():
    model = nn.ModuleDict({"a": nn.Linear(2, 2)})
    with capture(model, "*") as store:
        model["a"](torch.ones(1, 2))
    assert "container" in store.coverage[""].reason
