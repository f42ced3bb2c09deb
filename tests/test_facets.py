"""Attention weights per head, which fused modules hide; and that looking for them changes nothing."""

import copy
import itertools
import threading
from contextlib import nullcontext

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.functional import scaled_dot_product_attention as kept_by_name
from torch.utils.checkpoint import checkpoint

from inspector import models
from inspector.hooks import capture, edit, live, tap
from inspector.tensors import walk

torch.set_num_threads(1)


def close(actual, expected, within=1e-6):
    torch.testing.assert_close(actual, expected, rtol=0, atol=within, equal_nan=True)


# ---- attention of nn.MultiheadAttention


def true_weights(mha, *args, **kwargs):
    """What PyTorch returns in eval mode, per head, from a copy."""
    mha = copy.deepcopy(mha).eval()
    with torch.no_grad():
        return mha(*args, **kwargs | {"need_weights": True, "average_attn_weights": False})[1]


def masks(kind, batch, targets, sources, heads):
    blocked = torch.zeros(batch, sources, dtype=torch.bool)
    blocked[0, -2:] = True
    causal = torch.ones(targets, sources).triu(1).bool()
    return {
        "none": {},
        "padding": {"key_padding_mask": blocked},
        "float padding": {"key_padding_mask": blocked.float() * -3},
        "causal": {"attn_mask": causal},
        "float": {"attn_mask": torch.randn(targets, sources)},
        "per head": {"attn_mask": torch.rand(batch * heads, targets, sources) > 0.9},
        "both": {"attn_mask": causal, "key_padding_mask": blocked},
    }[kind]


SHAPES = {
    "plain": {},
    "batch first": {"batch_first": True},
    "one head": {"num_heads": 1},
    "other widths": {"kdim": 6, "vdim": 10},
    "added bias": {"add_bias_kv": True},
    "added zero": {"add_zero_attn": True},
    "all": {"kdim": 6, "vdim": 10, "add_bias_kv": True, "add_zero_attn": True, "batch_first": True, "bias": False},
}


@pytest.mark.parametrize("mode", ["train", "eval", "no_grad", "inference"])
@pytest.mark.parametrize("mask", ["none", "padding", "float padding", "causal", "float", "per head", "both"])
@pytest.mark.parametrize("shape", SHAPES)
def test_attention_is_what_pytorch_returns_in_eval_mode(shape, mask, mode):
    torch.manual_seed(0)
    options = {"embed_dim": 8, "num_heads": 4, "dropout": 0.5} | SHAPES[shape]
    mha = nn.MultiheadAttention(**options).train(mode == "train")
    first, cross = options.get("batch_first", False), "kdim" in options
    sizes = [(3, 5, 8), (3, 7, options.get("kdim", 8)), (3, 7, options.get("vdim", 8))]
    query, key, value = (torch.randn(size if first else (size[1], size[0], size[2])) for size in sizes)
    if not cross:
        key = value = query
    sources = 7 if cross else 5
    given = masks(mask, 3, 5, sources, options["num_heads"])
    with (
        torch.inference_mode(mode == "inference"),
        torch.set_grad_enabled(mode in ("train", "eval")),
        capture(mha, what=("output", "attention")) as store,
    ):
        mha(query, key, value, need_weights=mask == "none", **given)
    close(store[""].attention, true_weights(mha, query, key, value, **given))
    added = options.get("add_bias_kv", False) + options.get("add_zero_attn", False)
    assert store[""].attention.shape == (3, options["num_heads"], 5, sources + added)
    assert not store[""].attention.requires_grad


def test_attention_of_an_unbatched_input_has_no_batch_axis():
    mha, x = nn.MultiheadAttention(8, 2), torch.randn(5, 8)
    with capture(mha, what="attention") as store:
        mha(x, x, x, key_padding_mask=torch.tensor([False, False, False, True, True]))
    assert store[""].attention.shape == (2, 5, 5)
    close(store.at(":attention").sum(-1), torch.ones(2, 5))


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("mode", ["train", "eval", "no_grad"])
@pytest.mark.parametrize("asked", [True, False])
def test_a_query_that_may_look_nowhere_has_the_weights_that_its_output_follows_from(asked, mode, batch_first):
    mha, x = nn.MultiheadAttention(8, 2, batch_first=batch_first).train(mode == "train"), torch.randn(3, 3, 8)
    blocked = torch.zeros(3, 3, dtype=torch.bool)
    blocked[1] = True
    with torch.set_grad_enabled(mode != "no_grad"), capture(mha, what=("output", "attention")) as store:
        mha(x, x, x, key_padding_mask=blocked, need_weights=asked)
    output = store.at(":output[0]")
    lost = (output if batch_first else output.transpose(0, 1))[1]
    weights = store[""].attention
    assert weights[1].isnan().all() if lost.isnan().all() else (weights[1] == 0).all()
    close(weights[[0, 2]].sum(-1), torch.ones(2, 2, 3))


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize("mode", ["train", "eval", "no_grad"])
@pytest.mark.parametrize("padded", [False, True])
def test_attention_inside_transformer_layers_is_seen_in_every_mode(mode, padded):
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.1, batch_first=True)
    encoder = nn.TransformerEncoder(layer, 2).train(mode == "train")
    x, mask = torch.randn(3, 5, 8), torch.arange(5) >= torch.tensor([[5], [3], [4]])
    given = {"src_key_padding_mask": mask} if padded else {}
    with torch.set_grad_enabled(mode != "no_grad"), capture(encoder, what=("input", "attention")) as store:
        encoder(x, **given)
    for i in range(2):
        weights = store[f"layers.{i}.self_attn"].attention
        before = store[f"layers.{i}.self_attn"].input["query"]
        if before.is_nested:  # padding was cut off; PyTorch gives such queries the weights 0
            before = before.to_padded_tensor(0.0)
            assert (weights.transpose(1, 2)[mask] == 0).all()
        expected = true_weights(encoder.layers[i].self_attn, *3 * [before], key_padding_mask=mask if padded else None)
        close(weights.transpose(1, 2)[~mask], expected.transpose(1, 2)[~mask])


def test_decoder_layers_have_their_own_and_their_cross_attention():
    torch.manual_seed(0)
    decoder = nn.TransformerDecoder(nn.TransformerDecoderLayer(8, 2, 16, batch_first=True), 1).eval()
    target, memory = torch.randn(2, 4, 8), torch.randn(2, 6, 8)
    causal = nn.Transformer.generate_square_subsequent_mask(4)
    with capture(decoder, what="attention") as store:
        decoder(target, memory, tgt_mask=causal, tgt_is_causal=True)
    own = store["layers.0.self_attn"].attention
    assert own.shape == (2, 2, 4, 4)
    assert (own.triu(1) == 0).all()
    assert store["layers.0.multihead_attn"].attention.shape == (2, 2, 4, 6)
    assert store["layers.0"].attention is None, "its parts are asked on their own"
    with capture(decoder, "layers.0", what="attention") as store:
        decoder(target, memory, tgt_mask=causal, tgt_is_causal=True)
    first, second = store["layers.0"].attention
    close(first, own)
    assert second.shape == (2, 2, 4, 6)


def test_half_precision_and_autocast_keep_their_type():
    mha, x = nn.MultiheadAttention(8, 2, batch_first=True), torch.randn(2, 3, 8)
    with torch.autocast("cpu", torch.bfloat16), capture(mha, what="attention") as store:
        expected = mha(x, x, x, average_attn_weights=False)[1]
    assert store[""].attention.dtype == expected.dtype
    close(store[""].attention, expected)


# ---- attention of modules that call scaled_dot_product_attention


class Own(nn.Module):
    """Attention as users write it; ``attend`` is whatever they call."""

    def __init__(self, attend=F.scaled_dot_product_attention, **options):
        super().__init__()
        self.attend, self.options = attend, options
        self.project = nn.Linear(8, 24)

    def forward(self, x):
        q, k, v = self.project(x).unflatten(-1, (3, 2, 4)).permute(2, 0, 3, 1, 4)
        return self.attend(q, k, v, **self.options)


def by_hand(module, x):
    """The weights from their definition, in float64."""
    q, k, _ = module.project(x).detach().unflatten(-1, (3, 2, 4)).permute(2, 0, 3, 1, 4).double()
    options = module.options
    scores = torch.einsum("bhle,bhse->bhls", q, k) * options.get("scale", 4**-0.5)
    mask = options.get("attn_mask")
    if options.get("is_causal"):
        mask = torch.ones(scores.shape[-2:], dtype=torch.bool).tril()
    if mask is not None:
        scores = torch.where(mask, scores, -torch.inf) if mask.dtype == torch.bool else scores + mask
    return torch.nan_to_num(scores.softmax(-1), 0.0).float()


NOBODY = torch.ones(5, 5, dtype=torch.bool)
NOBODY[2] = False


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"is_causal": True},
        {"scale": 0.3},
        {"attn_mask": torch.randn(5, 5)},
        {"attn_mask": torch.rand(3, 1, 5, 5) > 0.3},
        {"attn_mask": NOBODY},
        {"dropout_p": 0.5},
    ],
    ids=["plain", "causal", "scale", "float", "bool", "nobody", "dropout"],
)
@pytest.mark.parametrize("attend", [F.scaled_dot_product_attention, kept_by_name, lambda *a, **k: kept_by_name(*a, **k)])
def test_attention_of_a_users_own_module_is_seen_however_it_calls_it(attend, options):
    torch.manual_seed(0)
    module, x = Own(attend, **options), torch.randn(3, 5, 8)
    with capture(module, what=("output", "attention")) as store:
        module(x)
    assert store[""].attention.shape == (3, 2, 5, 5)
    close(store[""].attention, by_hand(module, x))
    assert store["project"].attention is None
    assert "no attention that can be seen" in store["project"].why["attention"]


def test_grouped_queries_share_their_keys():
    q, k, v = torch.randn(2, 6, 4, 8), torch.randn(2, 2, 5, 8), torch.randn(2, 2, 5, 8)

    class Grouped(nn.Module):
        def forward(self, q, k, v):
            return F.scaled_dot_product_attention(q, k, v, enable_gqa=True)

    with capture(module := Grouped(), what=("output", "attention")) as store:
        module(q, k, v)
    weights = store[""].attention
    assert weights.shape == (2, 6, 4, 5)
    close(weights @ v.repeat_interleave(3, 1), store[""].output)
    close(weights, ((q / 8**0.5) @ k.repeat_interleave(3, 1).mT).softmax(-1))


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize("layout", [torch.jagged, torch.strided])
def test_nested_sequences_are_padded_with_zeros(layout):
    parts = [torch.randn(length, 2, 4) for length in (3, 5)]
    nested = torch.nested.nested_tensor(parts, layout=layout).transpose(1, 2)
    nested = nested.contiguous() if layout is torch.strided else nested

    class Plain(nn.Module):
        def forward(self, x):
            return F.scaled_dot_product_attention(x, x, x)

    with capture(module := Plain(), what="attention") as store:
        module(nested)
    assert store[""].attention.shape == (2, 2, 5, 5)
    for weights, part in zip(store[""].attention, parts, strict=True):
        heads, length = part.transpose(0, 1), len(part)
        close(weights[:, :length, :length], (heads @ heads.mT / 2).softmax(-1))
        assert weights.sum() == pytest.approx(2 * length)


def test_lower_right_causal_bias_is_a_mask_too():
    from torch.nn.attention.bias import causal_lower_right

    q, k = torch.randn(1, 2, 3, 8), torch.randn(1, 2, 5, 8)

    class Late(nn.Module):
        def forward(self, q, k):
            return F.scaled_dot_product_attention(q, k, k, causal_lower_right(3, 5))

    with capture(module := Late(), what=("output", "attention")) as store:
        module(q, k)
    close(store[""].attention @ k, store[""].output)


def test_several_attentions_in_one_call_are_a_tuple_in_order():
    class Two(nn.Module):
        def forward(self, x):
            return F.scaled_dot_product_attention(F.scaled_dot_product_attention(x, x, x, is_causal=True), x, x)

    with capture(module := Two(), what="attention") as store:
        module(torch.randn(1, 2, 3, 4))
    first, second = store[""].attention
    assert (first.triu(1) == 0).all()
    assert (second > 0).all()
    assert torch.equal(store.at(":attention[1]"), second)


def test_an_attention_belongs_to_the_innermost_chosen_module():
    model = nn.Sequential(Own(), nn.Flatten(), nn.ReLU())
    x = torch.randn(3, 5, 8)
    with capture(model, what="attention") as store:
        model(x)
    assert store[""].attention is None
    close(store["0"].attention, by_hand(model[0], x))
    with capture(model, "", what="attention") as store:
        model(x)
    close(store[""].attention, by_hand(model[0], x))


def test_a_module_of_ones_own_around_the_functional_form_is_seen():
    mha, x = nn.MultiheadAttention(8, 2, dropout=0.3), torch.randn(5, 3, 8)

    class Around(nn.MultiheadAttention):
        def forward(self, x):
            return super().forward(x, x, x, need_weights=False)[0]

    around = Around(8, 2, dropout=0.3)
    around.load_state_dict(mha.state_dict())
    with capture(around, what="attention") as store:
        around(x)
    close(store[""].attention, true_weights(mha, x, x, x))


def test_where_watching_would_change_the_fused_path_it_is_refused_with_the_cure():
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.MultiheadAttention(8, 2, batch_first=True)

        def forward(self, x):
            return self.inner(x, x, x)[0]

    block, x = Block().eval(), torch.randn(2, 3, 8)
    with torch.no_grad():
        plain = block(x)
        with capture(block, "", what=("output", "attention")) as store:
            block(x)
        assert torch.equal(store[""].output, plain)
        assert store[""].attention is None
        assert "inner (MultiheadAttention)" in store[""].why["attention"]
        with capture(block, what=("output", "attention")) as store:
            block(x)
        assert torch.equal(store[""].output, plain)
        close(store["inner"].attention, true_weights(block.inner, x, x, x))
    with capture(block, "", what="attention") as store:
        block(x)
    close(store[""].attention, true_weights(block.inner, x, x, x))


def test_a_tap_sends_attention_only_where_there_is_one():
    events, model = [], nn.Sequential(nn.Linear(8, 8), Own())
    with tap(model, "*", events.append, what="attention"):
        model(torch.randn(3, 5, 8))
    assert [str(event.site) for event in events] == ["1@0:attention"]


# ---- what looking must not change


def modes():
    return torch._C._len_torch_function_stack()


def test_the_watch_is_gone_after_every_kind_of_end():
    class Fails(nn.Module):
        def __init__(self, error):
            super().__init__()
            self.inner, self.error = nn.Linear(2, 2), error

        def forward(self, x):
            raise self.error

    for error in (ValueError("no"), KeyboardInterrupt()):
        model = nn.Sequential(Own(), Fails(error))
        with pytest.raises(type(error)), capture(model, what="attention") as store:
            model(torch.randn(3, 5, 8))
        assert modes() == 0
        assert store["0"].attention is not None
    with capture(model := Own(), what="attention"):
        model(torch.randn(3, 5, 8))
        assert modes() == 0


def test_a_function_mode_of_the_users_stays_where_it_is():
    class Counting(torch.overrides.TorchFunctionMode):
        count = 0

        def __torch_function__(self, func, types, args=(), kwargs=None):
            Counting.count += func is F.scaled_dot_product_attention
            return func(*args, **(kwargs or {}))

    class Inside(nn.Module):
        def __init__(self):
            super().__init__()
            self.own, self.mha = Own(), nn.MultiheadAttention(8, 2)

        def forward(self, x):
            with Counting():
                return self.own(x), self.mha(x, x, x)

    model, x = Inside(), torch.randn(3, 5, 8)
    with Counting(), capture(model, what="attention") as store:
        model(x)
        assert modes() == 1
    assert modes() == 0
    close(store["own"].attention, by_hand(model.own, x))
    close(store["mha"].attention, true_weights(model.mha, x, x, x))
    assert store[""].attention is None
    assert Counting.count == 2, "both modes saw the model's own call"


@pytest.mark.parametrize("training", [True, False])
def test_looking_at_facets_changes_no_bit_of_the_run(training):
    torch.manual_seed(0)
    encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 1, enable_nested_tensor=False)
    model = nn.Sequential(Own(dropout_p=0.5), Heads(), encoder, nn.GRU(8, 4, 2, dropout=0.5, batch_first=True))
    model.train(training)

    def run(look):
        twin, x = copy.deepcopy(model), torch.randn(3, 5, 8, generator=torch.Generator().manual_seed(1), requires_grad=True)
        torch.manual_seed(2)
        if look:
            with capture(twin, what=("attention", "gates")):
                out = twin(x)[0]
        else:
            out = twin(x)[0]
        out.sum().backward()
        return [out, x.grad, torch.get_rng_state(), *(p.grad for p in twin.parameters())]

    assert all(torch.equal(a, b) for a, b in zip(run(True), run(False), strict=True))


class Heads(nn.Module):
    def forward(self, x):
        return x.transpose(1, 2).flatten(2)


def test_spectral_norm_is_not_advanced_by_looking():
    torch.manual_seed(0)
    mha = nn.MultiheadAttention(8, 2)
    nn.utils.parametrizations.spectral_norm(mha, "in_proj_weight")
    twin, x = copy.deepcopy(mha), torch.randn(5, 3, 8)
    plain = twin(x, x, x)
    with capture(mha, "", what=("output", "attention")) as store:
        mha(x, x, x)
    assert torch.equal(store.at(":output[0]"), plain[0])
    close(store[""].attention.mean(1), plain[1])
    assert all(torch.equal(a, b) for a, b in zip(mha.buffers(), twin.buffers(), strict=True))


def test_facets_are_detached_also_when_kept_live():
    with capture(module := Own(), keep=live, what=("output", "attention")) as store:
        module(torch.randn(3, 5, 8))
    assert store[""].output.requires_grad
    assert not store[""].attention.requires_grad


def test_nested_captures_and_captures_in_threads_have_each_their_own_attention():
    model, x = nn.Sequential(Own(), Heads(), nn.MultiheadAttention(8, 2, batch_first=True)).eval(), torch.randn(3, 5, 8)
    model[2].register_forward_pre_hook(lambda _, args: (args[0], args[0], args[0]))
    stores = []

    def look():
        with (
            torch.no_grad(),
            capture(model, what="attention") as outer,
            capture(model, what=("output", "attention")) as inner,
        ):
            model(x)
            assert modes() == 0
        stores.append((outer, inner))

    with torch.no_grad():
        plain = model(x)[0]
    threads = [threading.Thread(target=look) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for outer, inner in stores:
        assert torch.equal(inner.at(":output[0]"), plain), "the fused path was taken"
        for name in ("0", "2"):
            assert torch.equal(outer[name].attention, inner[name].attention)
        close(outer["0"].attention, by_hand(model[0], x))


@pytest.mark.parametrize("reentrant", [True, False])
def test_a_checkpointed_attention_is_seen_once(reentrant):
    class Saving(nn.Module):
        def __init__(self):
            super().__init__()
            self.own = Own()

        def forward(self, x):
            return checkpoint(self.own, x, use_reentrant=reentrant)

    model, x = Saving(), torch.randn(3, 5, 8, requires_grad=True)
    with capture(model, what=("attention", "grad")) as store:
        model(x).sum().backward()
    assert list(store) == ["", "own", "own.project"]
    close(store["own"].attention, by_hand(model.own, x))


@pytest.mark.slow
def test_a_compiled_model_is_seen_and_stays_compiled():
    compiles = []

    def backend(graph, _):
        compiles.append(graph)
        return graph.forward

    model, x = nn.Sequential(Own(), Heads()), torch.randn(3, 5, 8)
    for compiled in (torch.compile(model, backend=backend), nn.Sequential(torch.compile(model, backend=backend))):
        compiled(x)
        before = len(compiles)
        with capture(compiled, what="attention") as store:
            compiled(x)
        compiled(x)
        assert len(compiles) == before
        own = next(name for name in store if name.endswith("0") and store[name].attention is not None)
        close(store[own].attention, by_hand(model[0], x))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_watching_changes_no_bit_of_any_module_of_pytorch():
    from torch.testing._internal.common_modules import module_db

    class Root(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, *args, **kwargs):
            return self.inner(*args, **kwargs)

    def run(inner, given, look):
        root, (args, kwargs) = Root(copy.deepcopy(inner)), copy.deepcopy((given.args, given.kwargs))
        torch.manual_seed(1)
        with capture(root, "", what=("attention", "gates")) if look else nullcontext():
            output = root(*args, **kwargs)
        return [*(tensor for _, tensor in walk(output)), torch.get_rng_state()]

    seen = set()
    for info, training, grad in itertools.product(module_db, (True, False), (True, False)):
        for sample in info.module_inputs_func(info, "cpu", torch.float32, False, training):
            try:
                inner = info.module_cls(*sample.constructor_input.args, **sample.constructor_input.kwargs).train(training)
                with torch.set_grad_enabled(grad):
                    plain = run(inner, sample.forward_input, False)
            except (RuntimeError, TypeError, AttributeError, NotImplementedError):
                continue  # it does not run without us either
            with torch.set_grad_enabled(grad):
                watched = run(inner, sample.forward_input, True)
            torch.testing.assert_close(watched, plain, rtol=0, atol=0, equal_nan=True, msg=info.name)
            seen.add(info.name)
    assert len(seen) > 100


def test_parameters_given_for_one_call_are_those_that_count():
    torch.manual_seed(0)
    mha, x = nn.MultiheadAttention(8, 2), torch.randn(5, 3, 8)
    other = {name: torch.randn_like(p) for name, p in mha.named_parameters()}
    with capture(mha, "", what="attention") as store:
        _, weights = torch.func.functional_call(mha, other, (x, x, x))
    close(store[""].attention.mean(1), weights)


def test_a_module_inside_itself_and_a_frozen_first_layer_are_no_trap():
    encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 2).eval()
    encoder.layers[0].requires_grad_(False)
    encoder.itself = nn.ModuleList([encoder])
    with capture(encoder, "", what="attention") as store:
        encoder(torch.randn(2, 3, 8))
    assert "fused path of (model)" in store[""].why["attention"]


@pytest.mark.filterwarnings("ignore:There is a performance drop")
@pytest.mark.parametrize("transform", [torch.func.vmap, lambda f: torch.func.grad(lambda x: f(x).sum())])
def test_attention_inside_a_transform_says_why_it_is_not_kept(transform):
    class Transformed(nn.Module):
        def forward(self, x):
            return transform(lambda q: F.scaled_dot_product_attention(q, q, q))(x)

    module, x = Transformed(), torch.randn(3, 2, 5, 4)
    with capture(module, what=("output", "attention")) as store:
        output = module(x)
    assert torch.equal(store[""].output, output)
    assert "torch.func transform" in store[""].why["attention"]
    with pytest.raises(RuntimeError, match="cannot be edited there"), edit(module, {":attention": lambda weights: weights}):
        module(x)


def test_attention_written_out_is_pointed_to():
    model = models.AttentionClassifier(features=6)
    with capture(model, what=("output", "attention")) as store:
        model(torch.randn(2, 5, 6))
    assert store[""].why["attention"].endswith("(written out? capture the output of 'softmax')")
    assert store["softmax"].output.shape == (2, 5, 5)


@pytest.mark.slow
def test_torchvisions_transformers_are_seen_or_say_why():
    from torchvision.models import SwinTransformer, VisionTransformer

    torch.manual_seed(0)
    x = torch.randn(2, 3, 32, 32)
    model = VisionTransformer(32, 8, 2, 4, 16, 32).eval()
    for grad in (True, False):
        with torch.set_grad_enabled(grad), capture(model, what=("input", "attention")) as store:
            model(x)
        seen = [name for name in store if store[name].attention is not None]
        assert seen == [f"encoder.layers.encoder_layer_{i}.self_attention" for i in range(2)]
        for name in seen:
            inputs = [value.detach() for value in list(store[name].input.values())[:3]]
            close(store[name].attention, true_weights(model.get_submodule(name), *inputs))
    swin = SwinTransformer([4, 4], 8, [1, 1], [2, 2], [4, 4]).eval()
    with capture(swin, what="attention") as store:
        swin(x)
    assert all(
        call.attention is None and "no attention that can be seen" in call.why["attention"] for call in store.values()
    )


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_sharded_models_are_seen_where_their_parameters_are_there_when_a_call_ends():
    import torch.distributed as dist
    from torch.distributed.fsdp import fully_shard

    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        layer, x = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), torch.randn(2, 3, 8)
        expected = true_weights(layer.self_attn, x, x, x)
        around, itself = fully_shard(copy.deepcopy(layer)), copy.deepcopy(layer)
        fully_shard(itself.self_attn)
        with capture(around, what="attention") as store:
            around(x)
        close(store["self_attn"].attention, expected)
        with capture(fully_shard(itself), what="attention") as store:
            itself(x)
        assert "shard the module around it" in store["self_attn"].why["attention"]
    finally:
        dist.destroy_process_group()
