"""Nested values: walking finds every tensor, rebuilding keeps every type."""

import dataclasses
import warnings
from collections import OrderedDict, UserDict, defaultdict, namedtuple
from collections.abc import MutableMapping
from types import MappingProxyType, SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils.rnn import PackedSequence, pack_sequence

from inspector.tensors import (
    Inputs,
    Struct,
    batch_size,
    digest,
    dtype_text,
    format_leaf,
    nbytes,
    only_tensor,
    parts,
    pick,
    rebuild,
    run,
    shape_text,
    walk,
)

Pair = namedtuple("Pair", "left right")


@dataclasses.dataclass
class Open:
    hidden: object
    rest: object = None


@dataclasses.dataclass(frozen=True)
class Frozen:
    hidden: object


class ModelOutput(OrderedDict):
    """As in the transformers library: a mapping whose items are also attributes."""

    def __setitem__(self, name, value):
        super().__setitem__(name, value)
        object.__setattr__(self, name, value)


def model_output(fields):
    out = ModelOutput()
    for name, value in fields.items():
        out[name] = value
    return out


tensors = st.lists(st.integers(0, 3), max_size=2).map(lambda shape: torch.rand(shape))
others = st.one_of(st.none(), st.booleans(), st.integers(-9, 9), st.text(max_size=3), st.just(torch.float32))
names = st.text(max_size=4)


keys = st.one_of(names, st.integers(-3, 3), st.tuples(names, names))
MAKERS = [
    lambda given: list(given.values()),
    lambda given: tuple(given.values()),
    dict,
    OrderedDict,
    UserDict,
    lambda given: Struct({str(key): item for key, item in given.items()}),
    lambda given: Inputs({str(key): item for key, item in given.items()}),
    lambda given: model_output({f"field{i}": item for i, item in enumerate(given.values())}),
    lambda given: Pair(given, list(given.values())),
    lambda given: Open(given, tuple(given.values())[:1]),
    Frozen,
]


def nestings(inner):
    return st.tuples(st.sampled_from(MAKERS), st.dictionaries(keys, inner, max_size=3)).map(lambda drawn: drawn[0](drawn[1]))


values = st.recursive(st.one_of(tensors, others), nestings, max_leaves=8)


def shape_of(value):
    """The nesting alone: classes and keys, tensors by identity, others by value."""
    if isinstance(value, torch.Tensor):
        return id(value)
    children = parts(value)
    if not children:
        return type(value), repr(value)
    return type(value), [(key, shape_of(item)) for key, item in children]


@given(values)
def test_rebuilding_with_the_same_tensors_gives_the_same_value(value):
    assert shape_of(rebuild(value, lambda leaf, tensor: tensor)) == shape_of(value)


@given(values)
def test_rebuilding_changes_every_tensor_and_leaves_the_given_value_alone(value):
    before, shape = list(walk(value)), shape_of(value)
    changed = rebuild(value, lambda leaf, tensor: tensor + 1)
    assert [leaf for leaf, _ in walk(changed)] == [leaf for leaf, _ in before]
    assert all(torch.equal(new, old + 1) for (_, new), (_, old) in zip(walk(changed), before, strict=True))
    assert shape_of(value) == shape


@given(values)
def test_every_leaf_that_walk_names_is_picked_by_it(value):
    for leaf, tensor in walk(value):
        assert pick(value, leaf) is tensor
        assert only_tensor(pick(value, leaf), format_leaf(leaf)) is tensor


@given(values)
def test_leaves_are_told_apart(value):
    leaves = [leaf for leaf, _ in walk(value)]
    assert len(set(leaves)) == len(leaves)
    assert len({format_leaf(leaf) for leaf in leaves}) == len(leaves)


@given(values, st.lists(st.one_of(st.integers(-9, 9), names), min_size=1, max_size=3).map(tuple))
def test_picking_answers_or_names_what_there_is(value, leaf):
    try:
        pick(value, leaf)
    except LookupError as error:
        assert "it has" in str(error)


def test_a_model_output_keeps_its_class_and_its_attributes():
    new = rebuild(model_output({"logits": torch.ones(2)}), lambda leaf, t: t * 2)
    assert type(new) is ModelOutput
    assert new.logits is new["logits"]
    assert torch.equal(new.logits, torch.full((2,), 2.0))


def test_packed_sequences_keep_their_class_and_what_they_know():
    packed = pack_sequence([torch.rand(3, 2), torch.rand(1, 2)])
    new = rebuild(packed, lambda leaf, t: t.clone())
    assert isinstance(new, PackedSequence)
    assert torch.equal(new.data, packed.data)
    assert torch.equal(new.batch_sizes, packed.batch_sizes)
    assert new.sorted_indices is None


def test_a_placeholder_may_stand_where_a_class_wants_a_tensor():
    assert rebuild(pack_sequence([torch.rand(3, 2)]), lambda leaf, t: None).data is None


def test_keys_of_any_kind_lead_to_a_tensor():
    edge, one = ("user", "rates", "film"), torch.ones(1)
    assert [leaf for leaf, _ in walk({edge: one})] == [(str(edge),)]
    assert list(rebuild({edge: one}, lambda leaf, t: t)) == [edge]
    assert len(list(walk({(1,): one, "(1,)": one}))) == 2


def test_a_mapping_that_shares_what_it_holds_with_its_copies_is_not_written_to():
    class Wrapping(MutableMapping):
        def __init__(self, held):
            self.held = held

        __getitem__ = lambda self, name: self.held[name]  # noqa: E731
        __setitem__ = lambda self, name, value: self.held.__setitem__(name, value)  # noqa: E731
        __delitem__ = lambda self, name: self.held.__delitem__(name)  # noqa: E731
        __iter__ = lambda self: iter(self.held)  # noqa: E731
        __len__ = lambda self: len(self.held)  # noqa: E731

    one = torch.ones(1)
    given = [Wrapping({"a": one}), UserDict(a=one), defaultdict(list, a=one)]
    new = rebuild(given, lambda leaf, t: t * 2)
    assert all(item["a"] is one for item in given)
    assert all(item["a"] == 2 for item in new)
    assert [type(item) for item in new] == [dict, UserDict, defaultdict]


def test_read_only_mappings_and_strange_sequences_become_plain_ones():
    class Several(tuple):
        def __new__(cls, first, *, label):
            return super().__new__(cls, (first,))

    new = rebuild([MappingProxyType({"a": torch.ones(1)}), Several(torch.ones(1), label="x")], lambda leaf, t: t * 2)
    assert [type(item) for item in new] == [dict, tuple]


def test_what_is_not_known_is_carried_along_untouched():
    generator, holder = (i for i in range(3)), SimpleNamespace(hidden=torch.ones(1))
    new = rebuild({"g": generator, "h": holder, "t": torch.ones(1)}, lambda leaf, t: t)
    assert new["g"] is generator
    assert new["h"] is holder
    assert list(generator) == [0, 1, 2]


def test_inputs_are_read_by_name_and_by_position():
    inputs = Inputs(x=1, mask=2)
    assert (inputs[0], inputs["mask"], inputs[-1]) == (1, 2, 2)
    with pytest.raises(KeyError, match="x, mask"):
        inputs[2]


def test_fields_of_a_struct_are_attributes():
    assert Struct(logits=3).logits == 3
    with pytest.raises(AttributeError, match="logits"):
        Struct(logits=3).loss


def test_a_nested_value_without_a_leaf_is_refused_with_its_leaves_named():
    with pytest.raises(LookupError, match=r"\[0\], \[1\]\[c\]"):
        only_tensor((torch.ones(1), {"c": torch.ones(1)}), "lstm")
    with pytest.raises(LookupError, match="no tensor but list"):
        only_tensor([], "lstm")


def test_run_calls_a_model_as_its_inputs_say():
    def model(x, y=0):
        return x + 2 * y

    one, two = torch.ones(1), torch.full((1,), 2.0)
    assert run(model, one) == 1
    assert run(model, (one, two)) == 5
    assert run(model, {"y": one, "x": two}) == 4
    assert isinstance(run(nn.Identity(), pack_sequence([torch.rand(2, 1)])), PackedSequence)


def test_batch_size_is_that_of_the_first_tensor_with_an_axis():
    assert batch_size((torch.tensor(1), {"x": torch.rand(5, 2)})) == 5
    with pytest.raises(ValueError, match="no batched tensor"):
        batch_size([1, torch.tensor(1)])


def odd_tensors():
    nan = float("nan")
    return {
        "empty": torch.empty(0, 3),
        "scalar": torch.tensor(3),
        "bool": torch.tensor([True, False]),
        "complex": torch.tensor([1 + 1j, complex(nan, 0)]),
        "bf16": torch.randn(3).bfloat16(),
        "float8": torch.randn(4).to(torch.float8_e4m3fn),
        "sparse": torch.eye(3).to_sparse(),
        "csr": torch.eye(3).to_sparse_csr(),
        "meta": torch.empty(2, device="meta"),
        "conj": torch.tensor([1 + 1j]).conj(),
        "not finite": torch.tensor([nan, float("inf"), 1.0]),
        "nothing finite": torch.tensor([nan]),
        "expanded": torch.ones(1).expand(2, 3),
        "uint64": torch.tensor([2**63], dtype=torch.uint64),
        "nested": nested([torch.ones(2), torch.ones(3)]),
        "jagged": nested([torch.ones(2), torch.ones(3)], torch.jagged),
        "requires grad": torch.ones(2, requires_grad=True),
        "parameter": nn.Parameter(torch.ones(2)),
        "quantized": torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8),
    }


def nested(items, layout=torch.strided):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.nested.nested_tensor(items, layout=layout)


@pytest.mark.filterwarnings("ignore::UserWarning")  # torch on CSR, nested and quantized tensors
def test_every_kind_of_tensor_is_described():
    for name, tensor in odd_tensors().items():
        assert digest(tensor), name
        assert shape_text(tensor), name
        assert dtype_text(tensor), name
        assert nbytes(tensor) >= 0, name


def test_a_digest_counts_what_is_not_finite_and_ignores_it_otherwise():
    assert digest(torch.tensor([float("nan"), float("inf"), 1.0, 0.0])) == "mean 0.5, 0 to 1, 25% zeros, 1 NaN, 1 Inf"
    assert digest(torch.tensor([float("nan")])) == "no finite value, 1 NaN"
    assert digest(torch.empty(0)) == "empty"
