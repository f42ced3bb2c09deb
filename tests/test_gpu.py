"""The laws once more on a GPU, where backward has threads of its own, copies are asynchronous and cuDNN refuses things.

Skipped where there is none. Sums on a GPU are deterministic here, so that "the same" means bit for bit.
"""

import copy
import os
import warnings
from importlib.util import find_spec

import pytest

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # before CUDA wakes up: bit for bit needs it

import test_laws
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from inspector import METHODS, METRICS, Samples, attribute, capture, compare, describe, models, show, summary
from inspector.hooks import borrow, edit, live, offload
from inspector.records import Comparison
from inspector.tensors import walk

if not torch.cuda.is_available():
    pytest.skip("needs a CUDA device", allow_module_level=True)

pytestmark = [
    pytest.mark.filterwarnings("ignore:RNN module weights are not part"),  # of the copies that the tests make
    pytest.mark.filterwarnings("ignore:.*torch.jit.script_method:DeprecationWarning"),  # torch's own compiler
    pytest.mark.filterwarnings("ignore:TensorFloat32 tensor cores"),  # switched off here, to compare exactly
]


@pytest.fixture(autouse=True)
def _the_same_sums_every_time():
    exact = (torch.backends.cuda.matmul, "allow_tf32"), (torch.backends.cudnn, "allow_tf32")
    before = [getattr(where, name) for where, name in exact]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # told once a process: that the mode is a prototype
        torch.cuda.set_sync_debug_mode("default")
    for where, name in exact:
        setattr(where, name, False)
    torch.use_deterministic_algorithms(True, warn_only=False)
    yield
    torch.use_deterministic_algorithms(False)
    torch.cuda.set_sync_debug_mode("default")
    for (where, name), value in zip(exact, before, strict=True):
        setattr(where, name, value)


@pytest.fixture
def _on_the_gpu(monkeypatch):
    build = test_laws.build

    def moved(name):
        model, x = build(name)
        return model.cuda(), x.cuda()

    monkeypatch.setattr(test_laws, "build", moved)


LAWS = [
    test_laws.test_every_captured_output_is_what_a_raw_clone_hook_sees,
    test_laws.test_every_missing_gradient_has_a_reason,
    test_laws.test_every_chosen_module_ran_or_the_coverage_says_why_not,
    test_laws.test_no_hook_outlives_the_block_also_when_it_raises,
    test_laws.test_the_random_stream_goes_on_as_without_looking,
]


@pytest.mark.parametrize("name", test_laws.ALL)
@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__[5:])
@pytest.mark.usefixtures("_on_the_gpu")
def test_the_laws_hold_on_a_gpu_too(law, name):
    law(name)


@pytest.mark.parametrize("name", [n for n in test_laws.ALL if n not in ("views", "chunked", "recursion")])
@pytest.mark.usefixtures("_on_the_gpu")
def test_gradients_that_arrive_in_backwards_own_thread_are_the_true_ones(name):
    test_laws.test_every_captured_gradient_is_what_a_raw_tensor_hook_sees(name)


@pytest.mark.parametrize("keep", ["snapshot", "borrow", "live", "mean"])
@pytest.mark.parametrize("name", test_laws.ALL)
@pytest.mark.usefixtures("_on_the_gpu")
def test_looking_changes_nothing_on_a_gpu_either(name, keep):
    test_laws.test_looking_changes_neither_the_outputs_nor_the_gradients_nor_the_state(name, keep)


def net():
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.Flatten(), nn.LazyLinear(10))


@pytest.fixture
def convolutions():
    model, x = net().cuda(), torch.randn(4, 3, 16, 16, device="cuda")
    model(x)
    return model, x


@pytest.mark.parametrize("keep", [offload, borrow, live, lambda t: t.mean()], ids=["offload", "borrow", "live", "mean"])
def test_nothing_that_is_kept_makes_the_device_wait(convolutions, keep):
    model, x = convolutions
    model(x).sum().backward()
    torch.cuda.set_sync_debug_mode("error")
    with capture(model, what=("output", "input", "grad"), keep=keep) as store:
        model(x).sum().backward()
    torch.cuda.set_sync_debug_mode("default")
    assert len(store) == 6


def test_a_snapshot_does_not_make_the_device_wait(convolutions):
    model, x = convolutions
    torch.cuda.set_sync_debug_mode("error")
    with capture(model, what=("output", "input", "grad", "grad_input")) as store:
        model(x).sum().backward()
    torch.cuda.set_sync_debug_mode("default")
    assert store["1"].output.is_cuda


def test_offloaded_values_are_on_the_cpu_and_are_never_read_before_they_have_arrived():
    model = nn.Sequential(nn.Linear(2048, 2048), nn.Linear(2048, 2048)).cuda()
    x = torch.randn(2048, 2048, device="cuda")
    with capture(model) as expected:
        model(x)
    for _ in range(5):
        torch.cuda._sleep(50_000_000)  # the copies are still on their way when they are read
        with capture(model, keep=offload) as store:
            model(x)
        for key in store:
            assert store[key].output.device.type == "cpu"
            assert torch.equal(store[key].output, expected[key].output.cpu())


def test_an_offloaded_value_outlives_an_in_place_operation_right_after_it(convolutions):
    model, x = convolutions
    with capture(model) as expected:
        model(x)
    with capture(model, keep=offload) as store:
        model(x)
    assert all(torch.equal(store[k].output, expected[k].output.cpu()) for k in store)


@pytest.mark.parametrize("reentrant", [False, True])
def test_a_recomputation_in_backwards_own_thread_is_no_second_call(reentrant):
    class Checkpointed(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.head = nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 6)), nn.Linear(6, 2)

        def forward(self, x):
            return self.head(checkpoint(self.body, x, use_reentrant=reentrant))

    model, x = Checkpointed().cuda(), torch.randn(4, 6, device="cuda", requires_grad=True)
    plain = nn.Sequential(copy.deepcopy(model.body), copy.deepcopy(model.head))
    with capture(model, what=("output", "grad")) as store:
        model(x).pow(2).sum().backward()
    with capture(plain, what=("output", "grad")) as expected:
        plain(x).pow(2).sum().backward()
    for ours, theirs in {"body.0": "0.0", "body.1": "0.1", "body": "0", "head": "1"}.items():
        assert torch.equal(store[ours].output, expected[theirs].output)
        assert torch.equal(store[ours].grad, expected[theirs].grad)


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
@pytest.mark.parametrize("training", [True, False])
def test_gates_hidden_inside_cudnn_are_recomputed(kind, training):
    rnn = kind(5, 7, num_layers=2, bidirectional=True, batch_first=True).cuda().train(training)
    x = torch.randn(3, 11, 5, device="cuda")
    with capture(rnn, what=("output", "gates")) as store:
        rnn(x)
    gates = store[""].gates
    on_cpu = copy.deepcopy(rnn).cpu()
    with capture(on_cpu, what="gates") as expected:
        on_cpu(x.cpu())
    assert gates.keys() == expected[""].gates.keys()
    for name in gates:
        torch.testing.assert_close(gates[name].cpu(), expected[""].gates[name], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("training", [True, False])
def test_attention_weights_are_those_that_pytorch_itself_returns(training):
    attention = nn.MultiheadAttention(16, 4, batch_first=True).cuda().train(training)
    x = torch.randn(2, 9, 16, device="cuda")
    expected = attention(x, x, x, average_attn_weights=False)[1]
    with capture(attention, what="attention") as store:
        attention(x, x, x, need_weights=False)
    torch.testing.assert_close(store[""].attention, expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_autocast_values_keep_their_type_and_scaled_gradients_are_labelled(dtype):
    model, x = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2)).cuda(), torch.randn(4, 8, device="cuda")
    scaler = torch.amp.GradScaler("cuda", init_scale=1024.0)
    with capture(model, what=("output", "grad")) as store:
        with torch.autocast("cuda", dtype=dtype):
            loss = model(x).float().sum()
        scaler.scale(loss).backward()
    assert store["0"].output.dtype == dtype
    assert "1024" in store["2"].why["grad"]
    torch.testing.assert_close(store["2"].grad, torch.full_like(store["2"].grad, 1024.0))


@pytest.mark.filterwarnings("ignore")  # while it records graphs, torch warns of much
def test_cuda_graphs_are_captured_eagerly_and_work_as_before_afterwards():
    model, x = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 2)).cuda(), torch.randn(4, 8, device="cuda")
    compiled = torch.compile(model, mode="reduce-overhead")
    with torch.no_grad():
        expected = [compiled(x).clone() for _ in range(3)][-1]
        with capture(compiled) as store:
            compiled(x)
        after = compiled(x).clone()
    assert torch.equal(store["2"].output, model(x))
    assert torch.equal(after, expected)


def test_an_edit_reaches_the_gradients_on_a_gpu():
    model, x = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 2)).cuda(), torch.randn(3, 4, device="cuda")
    with edit(model, {"1": lambda t: t * 2}), capture(model, what=("output", "grad")) as store:
        model(x).sum().backward()
    assert torch.equal(store["1"].output, 2 * torch.tanh(model[0](x)))


def _cpu_and_gpu():
    torch.manual_seed(1)
    model = models.load("cnn").double()
    x = models.tasks.digits().test[:4].inputs.double()
    return model, x, copy.deepcopy(model).cuda(), x.cuda()


DRAWN = ("deep_lift_shap", "expected_gradients", "feature_permutation", "gradient_shap", "kernel_shap", "lime", "rise")
DRAWN = (*DRAWN, "shapley_value_sampling", "smooth_grad")


def _method_names():
    return (
        []
        if find_spec("captum") is None
        else [n for n, r in METHODS.items() if r.needs != "attention" and "temporal" not in n]
    )


@pytest.mark.parametrize("name", _method_names())
def test_every_method_answers_on_a_gpu_as_on_the_cpu(name):
    model, x, on_gpu, there = _cpu_and_gpu()
    place = {"layer": "blocks.1.conv"} if METHODS[name].explains == "layer" or name == "guided_grad_cam" else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ours = attribute(on_gpu, there, target=3, method=name, **place)
        theirs = attribute(model, x, target=3, method=name, **place)
    for (_, a), (_, b) in zip(walk(ours.values), walk(theirs.values), strict=True):
        assert a.is_cuda
        assert a.shape == b.shape
        if name not in DRAWN:  # two devices draw other numbers
            torch.testing.assert_close(a.cpu(), b, atol=1e-8, rtol=1e-5)


@pytest.mark.parametrize("name", ["attention", "attention_rollout", "grad_x_attention"])
def test_every_attention_method_answers_on_a_gpu_as_on_the_cpu(name):
    pytest.importorskip("captum")
    model, x = models.load("attention").double(), models.tasks.digit_rows().test[:3].inputs.double()
    expected = attribute(model, x, target=1, method=name).values
    answer = attribute(copy.deepcopy(model).cuda(), x.cuda(), target=1, method=name).values
    torch.testing.assert_close(answer.cpu(), expected, atol=1e-8, rtol=1e-5)


@pytest.mark.parametrize("layer", [None, "lstm:output[0]"])
def test_an_lstm_is_explained_in_evaluation_mode_where_cudnn_refuses_backward(layer):
    pytest.importorskip("captum")
    model, samples = models.load("lstm").cuda().eval(), models.tasks.digit_rows().test[:3]
    answer = attribute(model, samples.inputs.cuda(), target=2, method="integrated_gradients", layer=layer, n_steps=64)
    assert answer.values.is_cuda
    assert answer.delta.abs().max() < 0.05
    assert not model.training
    assert torch.backends.cudnn.enabled


def test_the_gpus_random_stream_is_left_alone_by_methods_that_draw():
    pytest.importorskip("captum")
    _, _, model, x = _cpu_and_gpu()
    before = torch.cuda.get_rng_state()
    for name in ("smooth_grad", "gradient_shap", "rise"):
        attribute(model, x, target=1, method=name)
    summary(model, x)
    assert torch.equal(torch.cuda.get_rng_state(), before)


def test_a_comparison_on_a_gpu_is_scored_shown_told_and_saved(tmp_path):
    pytest.importorskip("captum")
    model, task = models.load("patches").cuda(), models.tasks.planted_patches()
    samples = task.test[:6]
    samples = Samples(samples.inputs.cuda(), target=samples.target.cuda(), evidence=samples.evidence.cuda())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        comparison = compare(model, samples, methods=("saliency", "grad_cam"), metrics=list(METRICS))
    show(comparison).savefig(tmp_path / "compare.png")
    assert describe(comparison)
    loaded = Comparison.load(comparison.save(tmp_path / "compare.safetensors"))
    assert repr(loaded) == repr(comparison)


def test_fitting_and_assessing_work_on_a_gpu():
    task = models.tasks.digits()
    model = models.CNN().cuda()
    history = models.fit(model, task, epochs=2, seed=0, progress=False)
    assert history.unit == "epoch"
    assert models.assess(model, task).accuracy > 0.8


def test_a_budget_counts_the_gpus_bytes(convolutions):
    model, x = convolutions
    with pytest.raises(MemoryError, match="budget"), capture(model, budget="20 kB"):
        model(x)
