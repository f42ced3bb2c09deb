"""Store: calls in run order under names that can be read back, refused where they are not clear, saved and loaded whole."""

import contextlib
import dataclasses
import gc
import re
import warnings
import weakref

import pytest
import torch
import zoo
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from inspector import Site, Store, borrow, capture, live
from inspector.archive import ArchiveError
from inspector.hooks import OverwrittenError
from inspector.records import Call
from inspector.records.coverage import Coverage
from inspector.records.store import NotCapturedError
from inspector.sites import KINDS
from inspector.tensors import Inputs, walk

paths = st.one_of(st.text("ab.@:[]' é", max_size=4), st.from_regex(r"[a-z]+(\.\d)?", fullmatch=True))


def made(order):
    """A store whose modules ran in this order; each output is the position in the order."""
    store, counts = Store(("output",), model="Made"), {}
    for position, path in enumerate(order):
        index = counts.get(path, 0)
        counts[path] = index + 1
        call = store.add(Call(Site(path, index), "Linear", ("output",)))
        call.values["output"], call.ended = torch.tensor([float(position)]), True
    return store


@given(st.lists(paths, max_size=8))
def test_keys_are_unique_in_run_order_and_each_leads_to_its_call(order):
    store = made(order)
    assert len(set(store)) == len(store) == len(order)
    for position, (name, call) in enumerate(store.items()):
        assert call.output.item() == position
        assert store[name] is call
        assert store.at(name).item() == position
        assert name in store
        assert Site.parse(name).path == order[position]


@given(st.lists(paths, min_size=1, max_size=8))
def test_all_gives_every_call_in_order_and_at_refuses_several(order):
    store = made(order)
    for path in set(order):
        places = [i for i, other in enumerate(order) if other == path]
        assert [t.item() for t in store.all(Site(path))] == places
        assert [store.at(Site(path, i)).item() for i in range(len(places))] == places
        if len(places) > 1:
            with pytest.raises(KeyError, match=f"ran {len(places)} times"):
                store.at(Site(path))
        else:
            assert store.at(Site(path)).item() == places[0]
        with pytest.raises(KeyError, match="did not happen"):
            store.at(Site(path, len(places)))


@given(st.lists(paths, max_size=6), paths)
def test_what_was_not_captured_is_an_error_and_no_key(order, path):
    store = made(order)
    if path in order:
        return
    assert Site(path) not in store
    with pytest.raises(KeyError, match="was not captured"):
        store[Site(path)]


@given(st.lists(paths, max_size=6))
def test_every_store_comes_back_from_its_tree(order):
    store = made(order)
    twin = Store.from_tree(store.to_tree())
    assert list(twin) == list(store)
    assert repr(twin) == repr(store)


class Several(nn.Module):
    """A module of every awkward kind of answer."""

    def __init__(self):
        super().__init__()
        self.relu, self.lstm, self.head = nn.ReLU(), nn.LSTM(3, 2), Head()
        self.unused = nn.Linear(1, 1)

    def forward(self, x, *, scale=1.0):
        hidden, _ = self.lstm(self.relu(self.relu(x) * scale))
        return self.head(hidden, mask=None)


@dataclasses.dataclass
class Answer:
    logits: torch.Tensor
    extra: dict


class Head(nn.Module):
    def forward(self, hidden, mask):
        return Answer(hidden.sum(-1), {"last": hidden[-1], ("a", "b"): hidden.argmax(-1)})


@pytest.fixture
def store():
    model, x = Several(), torch.randn(4, 2, 3, requires_grad=True)
    with capture(model, what=("output", "input", "grad", "grad_input")) as found:
        model(x, scale=2.0).logits.sum().backward()
    return found


def test_a_store_reads_the_same_after_it_was_saved(store, tmp_path):
    twin = Store.load(store.save(tmp_path / "store"))
    assert repr(twin) == repr(store)
    assert repr(twin.coverage) == repr(store.coverage)
    assert list(twin) == list(store)
    assert twin["relu@1"].parent == store["relu@1"].parent == ""
    for name, call in store.items():
        for kind in store.kinds:
            old, new = list(walk(getattr(call, kind))), list(walk(getattr(twin[name], kind)))
            assert [leaf for leaf, _ in old] == [leaf for leaf, _ in new]
            assert all(torch.equal(a, b) and a.dtype == b.dtype for (_, a), (_, b) in zip(old, new, strict=True))
    assert twin["head"].output.logits.shape == (4, 2)
    assert repr(Store.load(twin.save(tmp_path / "store"))) == repr(store)  # also over the file it is read from


def test_addresses_reach_into_nested_values(store):
    lstm, head = store["lstm"], store["head"]
    assert store.at("lstm:output[1][0]") is lstm.output[1][0]
    assert store.at('head[extra]["last"]') is head.output.extra["last"]
    assert store.at("head:output[logits]").shape == (4, 2)
    assert torch.equal(store.at("head:input[hidden]"), store.at("head:input[0]"))
    assert store.at("head:grad[logits]").eq(1).all()
    with pytest.raises(LookupError, match=r"name one: \[0\], \[1\]\[0\], \[1\]\[1\]"):
        store.at("lstm")
    with pytest.raises(LookupError, match=r"\[2\] is not in this tuple: it has \[0\], \[1\]"):
        store.at("lstm[2]")


def test_inputs_are_by_name_and_by_position(store):
    given = store[""].input
    assert isinstance(given, Inputs)
    assert given["x"] is given[0]
    assert given["scale"] == 2.0


def test_a_missing_gradient_is_none_with_the_reason(store):
    assert store["head"].grad.extra["last"] is None
    with pytest.raises(LookupError, match="None"):
        store.at('head:grad[extra]["last"]')
    assert "not reached by the loss" in store["head"].why["grad"]


def test_a_kind_that_was_not_asked_for_raises_with_the_cure():
    with capture(nn.ReLU()) as store:
        pass
    model = nn.ReLU()
    with capture(model) as store:
        model(torch.ones(1))
    for kind in KINDS[1:]:
        with pytest.raises(NotCapturedError, match=re.escape(f"what=('output', '{kind}')")):
            getattr(store[""], kind)
        with pytest.raises(LookupError):
            store.at(f":{kind}")
    with pytest.raises(AttributeError, match="it has output, input"):
        store[""].weights


def test_a_module_that_never_ran_says_why_when_it_is_asked_for(store):
    with pytest.raises(KeyError, match="never ran"):
        store["unused"]
    assert "unused" not in store
    assert list(store.coverage.missing) == ["unused"]
    assert "unused" in repr(store)


def test_a_near_name_is_offered(store):
    with pytest.raises(KeyError, match="Did you mean 'lstm'"):
        store["lstn"]


def test_odd_questions_are_no_keys(store):
    assert [name in store for name in ("relu", "relu@2", 3, None, "a:b:c")] == [False] * 5


@pytest.mark.parametrize("keep", [borrow, live])
def test_a_store_of_borrowed_values_saves_them_or_refuses(keep, tmp_path):
    model, x = nn.Sequential(nn.Linear(2, 2), nn.ReLU(inplace=True)), torch.randn(1, 2)
    with capture(model, keep=keep) as store:
        model(x)
    assert "overwritten" in repr(store)
    with pytest.raises(OverwrittenError, match="snapshot"):
        store.save(tmp_path / "store")
    assert list(tmp_path.iterdir()) == []
    with capture(model, "1", keep=keep) as store:
        model(x)
    assert torch.equal(Store.load(store.save(tmp_path / "store"))["1"].output, store["1"].output)


def awkward():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return {
            "empty": torch.empty(0, 3),
            "scalar": torch.tensor(3),
            "bool": torch.tensor([True]),
            "complex": torch.tensor([1j]),
            "float8": torch.ones(3).to(torch.float8_e5m2),
            "sparse": torch.eye(3).to_sparse(),
            "nested": torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]),
            "meta": torch.ones(2, device="meta"),
            "nothing": None,
            "text": "</script><img onerror=alert(1)>",
        }


@pytest.mark.parametrize("name", awkward())
def test_any_value_is_printed_and_saved(name, tmp_path):
    model = nn.Identity()
    with capture(model) as store:
        model(awkward()[name])
    twin = Store.load(store.save(tmp_path / "store"))
    assert repr(twin) == repr(store)
    assert type(twin[""].output) is type(store[""].output)


def test_an_empty_store_is_printed_and_saved(tmp_path):
    with capture(nn.ReLU()) as store:
        assert "Store: empty" in repr(store)
    assert Store.load(store.save(tmp_path / "store")).coverage.missing[""].reason == store.coverage.missing[""].reason


def test_a_thousand_calls_are_printed_in_part():
    store = made([f"layer{i}" for i in range(1000)])
    assert "200 of 1000 calls shown" in repr(store)
    assert len(repr(store).splitlines()) < 210


@pytest.mark.parametrize(
    "tree",
    [
        None,
        [],
        {},
        {"kinds": 3},
        {"kinds": ["output"], "aliases": {}, "model": "", "origin": {}, "calls": [{}], "coverage": {}},
    ],
)
def test_a_file_that_lacks_what_a_store_holds_is_refused(tree, tmp_path):
    from inspector import archive

    with pytest.raises(ArchiveError, match="Store"):
        Store.load(archive.save(tmp_path / "store", tree, kind="Store"))


def test_coverage_is_a_mapping_that_prints(store):
    coverage = store.coverage
    assert isinstance(coverage, Coverage)
    assert list(coverage) == ["", "relu", "lstm", "head", "unused"]
    assert coverage["relu"].calls == 2
    assert "relu" in repr(coverage)


@pytest.mark.parametrize("what", ["output", KINDS])
@pytest.mark.parametrize("raising", [False, True])
def test_what_was_captured_is_freed_with_the_store_without_waiting_for_a_collection(what, raising):
    model = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Flatten())
    gc.collect()
    gc.disable()
    try:
        with contextlib.suppress(ZeroDivisionError), capture(model, what=what) as store:
            model(torch.randn(2, 3)).sum().backward()
            1 / (not raising)
        there = [weakref.ref(store), weakref.ref(store["0"].output), weakref.ref(model)]
        del store, model
        assert [ref() for ref in there] == [None] * 3
    finally:
        gc.enable()


def test_a_store_with_an_object_that_is_no_data_is_saved_and_says_what_stood_there(tmp_path):
    class Cache:
        pass

    model = zoo.Function(lambda s, x: s.part(x)[0], part=zoo.Function(lambda s, x: (x * 2, Cache(), [None, 3])))
    with capture(model) as store:
        model(torch.ones(2))
    back = Store.load(store.save(tmp_path / "s.safetensors"))
    tensor, cache, rest = back["part"].output
    assert (tensor.tolist(), repr(cache), rest) == ([2.0, 2.0], "Cache (not saved)", [None, 3])
    assert repr(back) == repr(store)
