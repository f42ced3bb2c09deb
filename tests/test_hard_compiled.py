"""Fused, compiled, recomputed and wrapped models (hard cases 30 to 38)."""

import copy
import subprocess
import sys
import threading
import warnings
from contextlib import contextmanager

import pytest
import torch
import torch._dynamo.testing
import zoo
from torch import nn
from torch.utils.checkpoint import checkpoint

from inspector import capture, edit, select
from inspector.hooks.eager import _open


@contextmanager
def quiet():
    """TorchScript's own notices of its end differ from release to release."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def encoder_layer():
    return nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True).eval()


def fused_calls(layer, x, monkeypatch):
    calls = []
    fused = torch._transformer_encoder_layer_fwd
    monkeypatch.setattr(torch, "_transformer_encoder_layer_fwd", lambda *a, **k: (calls.append(1), fused(*a, **k))[1])
    with torch.no_grad():
        layer(x)
    monkeypatch.undo()
    return len(calls)


def test_what_was_chosen_in_a_fused_layer_is_seen_and_the_path_is_as_before_afterwards(monkeypatch):
    layer, x = encoder_layer(), torch.randn(2, 5, 8)
    assert fused_calls(layer, x, monkeypatch) == 1
    with capture(layer, "linear1") as store, torch.no_grad():
        layer(x)
    assert store["linear1"].output.shape == (2, 5, 16)
    assert fused_calls(layer, x, monkeypatch) == 1


def test_a_module_inside_a_fused_layer_that_was_not_chosen_leaves_the_fast_path_on(monkeypatch):
    layer, x = encoder_layer(), torch.randn(2, 5, 8)
    with torch.no_grad():
        expected = layer(x)
    model = nn.Sequential(layer)
    with capture(model, "") as store, torch.no_grad():
        assert fused_calls(model, x, monkeypatch) == 1
    assert torch.equal(store[""].output, expected)


@pytest.fixture
def compiled_world():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.parametrize("first", [True, False], ids=["before its first run", "after its first run"])
@pytest.mark.parametrize("how", ["torch.compile", "Module.compile", "submodule"])
def test_a_compiled_model_is_captured_and_works_as_before_afterwards(how, first, compiled_world):
    model, x = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 2)), torch.randn(2, 3)
    with capture(model, what=("output", "grad")) as expected:
        model(x).pow(2).sum().backward()
    untouched, plainly = compiled(copy.deepcopy(model), how)
    for _ in range(3):
        untouched(x)
    torch._dynamo.reset()
    run, counted = compiled(model, how)
    if not first:
        run(x)
    frames = counted.frame_count
    with capture(run, what=("output", "grad")) as store:
        run(x).pow(2).sum().backward()
    assert list(store) == ["", "0", "1", "2"]
    for name in store:
        assert torch.equal(store[name].output, expected[name].output)
        assert torch.equal(store[name].grad, expected[name].grad)
    assert counted.frame_count == frames
    for _ in range(3):
        run(x)
    assert counted.frame_count == plainly.frame_count
    assert torch.compiler.is_compiling() is False


def compiled(model, how):
    counted = torch._dynamo.testing.CompileCounter()
    if how == "torch.compile":
        return torch.compile(model, backend=counted), counted
    if how == "Module.compile":
        model.compile(backend=counted)
    else:
        model[0] = torch.compile(model[0], backend=counted)
    return model, counted


def test_overlapping_blocks_leave_the_compilers_stance_as_it_was(compiled_world):
    model, x = nn.Linear(3, 3), torch.ones(1, 3)
    counted = torch._dynamo.testing.CompileCounter()
    compiled = torch.compile(model, backend=counted)
    started, finish = threading.Event(), threading.Event()

    def other():
        with capture(model):
            started.set()
            finish.wait()

    thread = threading.Thread(target=other)
    with capture(model):
        thread.start()
        started.wait()
    finish.set()
    thread.join()
    assert not _open
    compiled(x)
    assert counted.frame_count == 1


def test_an_edit_of_a_compiled_model_takes_effect_and_goes_away(compiled_world):
    compiled, x = torch.compile(nn.Sequential(nn.Linear(3, 3), nn.ReLU()), backend="eager"), torch.randn(2, 3)
    plain = compiled(x)
    with edit(compiled, {"1": lambda t: t * 0 + 5}):
        assert compiled(x).eq(5).all()
    assert torch.equal(compiled(x), plain)


@pytest.mark.parametrize("reentrant", [True, False])
def test_an_edit_of_a_checkpointed_call_is_replayed_inside_the_block(reentrant):
    def build():
        torch.manual_seed(0)
        parts = {"a": nn.Linear(3, 3), "b": nn.Tanh()}
        wrapped = zoo.Function(lambda s, x: checkpoint(lambda y: s.b(s.a(y)), x, use_reentrant=reentrant), **parts)
        return wrapped, zoo.Function(lambda s, x: s.b(s.a(x)), **parts)

    wrapped, plain = build()
    x = torch.randn(2, 3, requires_grad=True)
    found = []
    for model in (wrapped, plain):
        with edit(model, {"a": lambda t: t * 2}):
            (grad,) = torch.autograd.grad(model(x).sum(), x) if not reentrant or model is plain else (backward(model, x),)
        found.append(grad)
    assert torch.equal(*found)


def backward(model, x):
    x.grad = None
    model(x).sum().backward()
    return x.grad


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
def test_an_edit_of_a_checkpointed_call_without_a_backward_to_come_is_allowed(reentrant):
    model = zoo.Function(lambda s, x: checkpoint(s.a, x, use_reentrant=reentrant), a=nn.Linear(3, 3))
    with torch.no_grad(), edit(model, {"a": lambda t: t * 0}):
        assert model(torch.randn(2, 3)).eq(0).all()


def test_a_scripted_submodule_is_explained_by_coverage():
    with quiet():
        scripted = torch.jit.script(nn.Linear(3, 3))
    model = nn.Sequential(nn.Linear(3, 3), scripted)
    with capture(model) as store:
        model(torch.ones(1, 3))
    assert "TorchScript" in store.coverage["1"].reason


def test_a_scripted_or_exported_model_is_refused_with_the_reason():
    with quiet():
        scripted = torch.jit.script(nn.Sequential(nn.Linear(3, 3)))
    with pytest.raises(TypeError, match="scripted"), capture(scripted):
        pass
    exported = torch.export.export(nn.Linear(3, 3), (torch.ones(1, 3),))
    with pytest.raises(TypeError, match="ExportedProgram"), capture(exported):
        pass


def test_tracing_and_exporting_inside_a_block_are_refused():
    model, x = nn.Linear(3, 3), torch.ones(1, 3)
    with capture(model), pytest.raises(RuntimeError, match="inside a capture"):
        torch.export.export(model, (x,))
    with capture(model), quiet(), pytest.raises(RuntimeError, match="inside a capture"):
        torch.jit.trace(model, x)
    assert not model._forward_hooks


def test_functional_call_works_with_other_parameters():
    model, x = nn.Sequential(nn.Linear(3, 3), nn.ReLU()), torch.randn(2, 3)
    zeros = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    with capture(model, what=("output", "input")) as store:
        torch.func.functional_call(model, zeros, (x,))
    assert store["0"].output.eq(0).all()


def test_vmap_says_clearly_what_does_not_work():
    model, x = nn.Sequential(nn.Linear(3, 3), nn.ReLU()), torch.randn(5, 2, 3)
    with capture(model) as store, pytest.raises(RuntimeError, match="vmap"):
        torch.vmap(model)(x)
    assert not model[0]._forward_hooks
    assert store is not None


WRAPPERS = {
    "DataParallel": lambda m: nn.DataParallel(m),
    "AveragedModel": lambda m: torch.optim.swa_utils.AveragedModel(m),
    "checkpoint_wrapper": lambda m: wrap_checkpoint(m),
}


def wrap_checkpoint(model):
    from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper

    model[0] = checkpoint_wrapper(model[0])
    return model


@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS.keys())
def test_wrappers_leave_the_users_own_names(wrap):
    model, x = nn.Sequential(nn.Linear(3, 3), nn.ReLU()), torch.randn(2, 3, requires_grad=True)
    wrapped = wrap(model)
    assert list(select(wrapped)) == ["", "0", "1"]
    with capture(wrapped, what=("output", "grad")) as store:
        wrapped(x).sum().backward()
    assert list(store) == ["", "0", "1"]
    assert store["1"].grad.eq(1).all()


def test_a_module_of_the_user_that_is_called_module_keeps_its_name():
    model = zoo.Function(lambda s, x: s.module(x), module=nn.Linear(3, 3))
    assert list(select(model)) == ["", "module"]


def test_autocast_captures_stay_in_bf16_and_gradients_too():
    model, x = nn.Sequential(nn.Linear(3, 3), nn.ReLU()), torch.randn(2, 3)
    with capture(model, what=("output", "grad")) as store, torch.autocast("cpu", dtype=torch.bfloat16):
        model(x).float().sum().backward()
    assert store["0"].output.dtype is torch.bfloat16
    assert store["0"].grad.dtype is torch.bfloat16
    assert "bfloat16" in repr(store)


RANK = """
import sys, torch, torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel
from inspector import capture, select
dist.init_process_group("gloo")
rank = dist.get_rank()
def build():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
x = torch.randn(3, 4, generator=torch.Generator().manual_seed(rank))
with capture(build(), what="output") as plain:
    plain_model = build()
for kind in ("ddp", "fsdp2"):
    model = build()
    with capture(model) as expected:
        model(x)
    if kind == "ddp":
        model = DistributedDataParallel(model)
    else:
        fully_shard(model[0], mesh=torch.distributed.device_mesh.init_device_mesh("cpu", (2,)))
        fully_shard(model, mesh=torch.distributed.device_mesh.init_device_mesh("cpu", (2,)))
    assert list(select(model)) == ["", "0", "1", "2"], list(select(model))
    assert list(select(model, nn.Linear)) == ["0", "2"]
    with capture(model, what=("output", "grad")) as store:
        model(x).sum().backward()
    for name in ("", "0", "1", "2"):
        assert torch.allclose(store[name].output, expected[name].output), (kind, name)
        assert store[name].grad is not None, (kind, name)
    assert store[""].grad.eq(1).all()
dist.destroy_process_group()
"""


@pytest.mark.slow
def test_each_of_two_ranks_sees_its_own_values_under_the_users_names(tmp_path):
    script = tmp_path / "rank.py"
    script.write_text(RANK)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(script)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]


def test_a_dry_run_is_the_users_to_make_and_a_capture_never_runs_the_model_by_itself():
    model = nn.Sequential(nn.BatchNorm1d(3), nn.Dropout())
    before = model[0].num_batches_tracked.clone()
    with capture(model, what=("output", "input", "grad")):
        pass
    assert torch.equal(model[0].num_batches_tracked, before)
