"""Edits of attention weights: the output follows from the weights that were put there, as the definition says."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from inspector.hooks import capture, edit
from inspector.hooks.attention_gradients import attention_gradients

SHAPES = {
    "plain": {},
    "batch first": {"batch_first": True},
    "other widths": {"kdim": 6, "vdim": 10},
    "added": {"add_bias_kv": True, "add_zero_attn": True},
    "all": {"kdim": 6, "vdim": 10, "add_bias_kv": True, "add_zero_attn": True, "batch_first": True, "bias": False},
}


def close(actual, expected, within=1e-6):
    torch.testing.assert_close(actual, expected, rtol=0, atol=within)


def same(weights):
    return weights


def only_head(head):
    """Every other head looks nowhere."""

    def keep(weights):
        mask = torch.zeros(weights.shape[-3], 1, 1)
        mask[head] = 1
        return weights * mask

    return keep


def attended(options):
    """A module and inputs for it."""
    torch.manual_seed(0)
    mha = nn.MultiheadAttention(8, 4, **options)
    for bias in (mha.in_proj_bias, mha.out_proj.bias):
        if bias is not None:
            nn.init.normal_(bias)
    sizes = [(3, 5, 8), (3, 7, options.get("kdim", 8)), (3, 7, options.get("vdim", 8))]
    inputs = [torch.randn(size if options.get("batch_first") else (size[1], size[0], size[2])) for size in sizes]
    return mha, inputs


@pytest.mark.parametrize("mode", ["train", "eval", "no_grad"])
@pytest.mark.parametrize("options", SHAPES.values(), ids=SHAPES)
def test_putting_the_same_weights_there_changes_nothing(options, mode):
    mha, inputs = attended(options)
    mha.train(mode == "train")
    for more in ({}, {"need_weights": False}, {"average_attn_weights": False}):
        with torch.set_grad_enabled(mode != "no_grad"):
            plain = mha(*inputs, **more)
            with edit(mha, {":attention": same}):
                edited = mha(*inputs, **more)
        close(edited[0], plain[0])
        assert (plain[1] is None) == (edited[1] is None)
        if plain[1] is not None:
            close(edited[1], plain[1])


@pytest.mark.parametrize("options", SHAPES.values(), ids=SHAPES)
def test_the_heads_one_at_a_time_add_up_to_all_of_them(options):
    mha, inputs = attended(options)
    outputs = []
    for change in (same, *map(only_head, range(4)), lambda w: 0 * w):
        with edit(mha, {":attention": change}), capture(mha, "", what=("output", "attention")) as store:
            outputs.append(mha(*inputs)[0])
        assert torch.equal(store.at(":output[0]"), outputs[-1])
    whole, *heads, none = outputs
    close(sum(head - none for head in heads), whole - none)


def test_an_unbatched_call_is_edited_without_a_batch_axis():
    mha, x = nn.MultiheadAttention(8, 2), torch.randn(5, 8)
    looking = capture(mha, "", what="attention"), capture(mha, "", what=("output", "attention"))
    with looking[0] as outer, edit(mha, {":attention": torch.full((2, 5, 5), 0.2)}), looking[1] as store:
        output, weights = mha(x, x, x)
    assert torch.equal(outer[""].attention, store[""].attention)
    assert output.shape == (5, 8)
    close(weights, torch.full((5, 5), 0.2))
    close(output, output[:1].expand(5, 8))
    assert torch.equal(store[""].attention, torch.full((2, 5, 5), 0.2))


def encoder(**options):
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
    return nn.TransformerEncoder(layer, 2, **options)


def test_a_capture_sees_the_edited_weights_and_what_follows_from_them():
    model, x = encoder(enable_nested_tensor=False).eval(), torch.randn(3, 5, 8)
    uniform = torch.full((3, 2, 5, 5), 0.2)
    with torch.no_grad(), capture(model, what=("output", "attention")) as before:
        model(x)
    editing, looking = edit(model, {"layers.0.self_attn:attention": uniform}), capture(model, what=("output", "attention"))
    with torch.no_grad(), editing, looking as store:
        model(x)
    assert torch.equal(store["layers.0.self_attn"].attention, uniform)
    assert not torch.allclose(store["layers.1.self_attn"].attention, before["layers.1.self_attn"].attention)
    values = F.linear(
        x, *(p.chunk(3)[2] for p in (model.layers[0].self_attn.in_proj_weight, model.layers[0].self_attn.in_proj_bias))
    )
    mean = model.layers[0].self_attn.out_proj(values.mean(1, keepdim=True).expand_as(values))
    close(store.at("layers.0.self_attn:output[0]"), mean.detach())
    with capture(model, what="attention") as after:
        model(x)
    close(after["layers.1.self_attn"].attention, before["layers.1.self_attn"].attention)


def test_patching_in_a_capture_from_another_run_gives_that_run():
    model, x, y = encoder(), torch.randn(3, 5, 8), torch.randn(3, 5, 8)
    with capture(model, what="attention") as store:
        model(y)
    patch = store["layers.1.self_attn"].attention
    with edit(model, {"layers.1.self_attn:attention": patch}), capture(model, "layers.1.*", what="attention") as seen:
        model(x)
    assert torch.equal(seen["layers.1.self_attn"].attention, patch)


class Own(nn.Module):
    def __init__(self, **options):
        super().__init__()
        self.project, self.options = nn.Linear(8, 24), options

    def forward(self, x):
        q, k, v = self.project(x).unflatten(-1, (3, 2, 4)).permute(2, 0, 3, 1, 4)
        return F.scaled_dot_product_attention(q, k, v, **self.options)


@pytest.mark.parametrize("options", [{}, {"is_causal": True}, {"scale": 0.1}, {"attn_mask": torch.randn(5, 5)}])
def test_a_users_own_attention_is_edited_too(options):
    module, x = Own(**options), torch.randn(3, 5, 8)
    with edit(module, {":attention": same}):
        close(module(x), module.forward(x))
    uniform = torch.full((5, 5), 0.2)
    looking = capture(module, what="attention"), capture(module, what=("output", "attention"))
    with edit(module, {":attention": uniform}), looking[0] as outer, looking[1] as store:
        module(x)
    for seen in (outer, store):
        assert torch.equal(seen[""].attention, uniform.expand(3, 2, 5, 5))
    close(
        store[""].output,
        module.project(x).unflatten(-1, (3, 2, 4)).permute(2, 0, 3, 1, 4)[2].mean(2, keepdim=True).expand(-1, -1, 5, -1),
    )


def test_gradients_flow_through_edited_weights_and_around_them():
    module, x = Own(attn_mask=torch.ones(5, 5).tril().bool()), torch.randn(3, 5, 8)

    def gradients(changes):
        twin = copy.deepcopy(module)
        with edit(twin, changes) if changes else torch.enable_grad():
            twin(x).square().sum().backward()
        return [p.grad for p in twin.parameters()]

    for edited, plain in zip(gradients({":attention": same}), gradients({}), strict=True):
        close(edited, plain, 1e-5)
    cut = gradients({":attention": lambda weights: weights.detach()})
    assert (cut[0][:16] == 0).all(), "queries and keys act through the weights alone"
    assert (cut[0][16:] != 0).any()


def test_one_of_several_attentions_in_a_call_must_be_named():
    class Two(nn.Module):
        def forward(self, x):
            return F.scaled_dot_product_attention(F.scaled_dot_product_attention(x, x, x, is_causal=True), x, x)

    module, x = Two(), torch.randn(1, 2, 3, 4)
    with edit(module, {":attention[1]": torch.eye(3)}), capture(module, what=("output", "attention")) as store:
        module(x)
    assert torch.equal(store.at(":attention[1]"), torch.eye(3).expand(1, 2, 3, 3))
    close(store[""].output, x)
    with (
        pytest.raises(LookupError, match=r"name one: .*attention\[0\], .*attention\[1\]"),
        edit(module, {":attention": same}),
    ):
        module(x)
    with pytest.raises(LookupError, match=r"\[2\] is not there"), edit(module, {":attention[2]": same}):
        module(x)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_what_cannot_be_edited_says_so():
    model, x = nn.Sequential(nn.Linear(8, 8), Own()), torch.randn(3, 5, 8)
    with pytest.raises(LookupError, match="cannot be edited"), edit(model, {"0:attention": same}):
        model(x)
    with pytest.raises(ValueError, match="broadcasts"), edit(model, {"1:attention": torch.ones(7, 7)}):
        model(x)
    with pytest.raises(ValueError, match="'gates' is not supported"), edit(model, {"1:gates": same}):
        pass
    outer, inner = edit(model, {"1:attention": same}), edit(model, {"1:attention": same})
    with pytest.raises(RuntimeError, match="outside this one"), outer, inner:
        model(x)
    assert torch._C._len_torch_function_stack() == 0
    padded = torch.arange(5) >= torch.tensor([[5], [3], [4]])
    fused = encoder().eval()
    refused, editing = pytest.raises(RuntimeError, match="enable_nested_tensor=False"), "layers.0.self_attn:attention"
    with refused, torch.no_grad(), edit(fused, {editing: same}):
        fused(x, src_key_padding_mask=padded)


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt()])
def test_an_interrupted_edit_leaves_nothing_behind(error):
    class Fails(Own):
        def forward(self, x):
            super().forward(x)
            raise error

    model = nn.Sequential(Fails())
    with pytest.raises(type(error)), edit(model, {"0:attention": same}), capture(model, what="attention"):
        model(torch.randn(3, 5, 8))
    assert torch._C._len_torch_function_stack() == 0
    with edit(model, {"0:attention": same}), pytest.raises(type(error)):
        model(torch.randn(3, 5, 8))


def test_an_edit_inside_an_edited_call_is_the_inner_modules_own():
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = Own()

        def forward(self, x):
            return F.scaled_dot_product_attention(x, x, x) + self.inner(x).sum()

    block, x = Block(), torch.randn(3, 5, 8)
    changes = {":attention": torch.eye(5), "inner:attention": torch.full((5, 5), 0.2)}
    with edit(block, changes), capture(block, what="attention") as store:
        block(x)
    assert torch.equal(store[""].attention, torch.eye(5).expand(3, 5, 5))
    assert torch.equal(store["inner"].attention, torch.full((3, 2, 5, 5), 0.2))


@pytest.mark.parametrize("reentrant", [True, False])
def test_a_checkpointed_edit_is_replayed_in_backward(reentrant):
    class Saving(nn.Module):
        def __init__(self, saving):
            super().__init__()
            self.own, self.saving = Own(), saving

        def forward(self, x):
            return checkpoint(self.own, x, use_reentrant=reentrant) if self.saving else self.own(x)

    torch.manual_seed(0)
    saving, plain, x = Saving(True), Saving(False), torch.randn(3, 5, 8)
    plain.load_state_dict(saving.state_dict())
    grads = []
    for model in (saving, plain):
        start = x.clone().requires_grad_()
        with edit(model, {"own:attention": only_head(0)}):
            model(start).square().sum().backward()
        grads.append(start.grad)
    close(*grads)


@pytest.mark.parametrize("trainable", [True, False])
def test_gradients_of_weights_are_those_of_small_changes(trainable):
    model, x = encoder().double().eval().requires_grad_(trainable), torch.randn(2, 4, 8).double()
    paths = ["layers.0.self_attn", "layers.1.self_attn"]
    plain = [p.grad for p in model.parameters()]
    found = attention_gradients(model, paths, lambda: model(x)[:, 0, 3])
    assert [p.grad for p in model.parameters()] == plain
    for path in paths:
        weights, gradient = found[path]
        assert weights.shape == gradient.shape == (2, 2, 4, 4)
        nudge = torch.zeros_like(weights)
        nudge[1, 0, 0, 2] = 1e-6
        scores = []
        for sign in (1, -1):
            with torch.no_grad(), edit(model, {f"{path}:attention": weights + sign * nudge}):
                scores.append(model(x)[1, 0, 3])
        close((scores[0] - scores[1]) / 2e-6, gradient[1, 0, 0, 2], 1e-6)
    assert (found[paths[1]].gradient[:, :, 1:] == 0).all(), "only the first position is asked for"


def test_gradients_of_weights_ask_for_a_module_that_runs_once():
    model, x = encoder().eval(), torch.randn(2, 4, 8)
    with pytest.raises(LookupError, match="more than once"):
        attention_gradients(model, ["layers.0.self_attn"], lambda: model(x) + model(2 * x))
    with pytest.raises(LookupError, match="did not run"):
        attention_gradients(model, ["layers.0.self_attn"], lambda: x.clone().requires_grad_().sum())
