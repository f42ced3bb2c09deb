"""Who called whom, how often, and what never ran (hard cases 20 to 29)."""

import copy
import threading
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest
import torch
import zoo
from torch import nn

from inspector import capture, edit, select, tap


def test_recursion_counts_calls_as_they_begin_and_knows_the_caller():
    model, x = zoo.make("recursion")
    with capture(model) as store:
        result = model(x)
    assert list(store) == ["@0", "a@0", "@1", "a@1", "@2", "a@2"]
    assert [store[key].parent for key in ("@0", "@1", "a@2")] == [None, "", ""]
    assert torch.equal(store["@0"].output, result)
    assert torch.equal(store["a@1"].output, model.a(store["a@0"].output))


def test_a_loop_gives_one_entry_for_each_call_and_the_bare_name_is_refused():
    model, x = zoo.make("loop")
    with capture(model, ("cell", nn.ReLU)) as store:
        model(x)
    assert list(store) == ["cell@0", "act@0", "cell@1", "act@1", "cell@2", "act@2"]
    assert len(store.all("act")) == 3
    with pytest.raises(KeyError, match="ran 3 times; name one: act@0, act@1, act@2"):
        store["act"]
    with pytest.raises(KeyError, match="did not happen"):
        store["act@7"]


def test_a_module_that_raises_and_is_caught_leaves_later_calls_with_their_own_module():
    def forward(self, x):
        try:
            x = self.bad(x)
        except RuntimeError:
            x = self.good(x)
        return self.last(x)

    def fail(self, x):
        self.inner(x)
        raise RuntimeError("no")

    model = zoo.Function(forward, bad=zoo.Function(fail, inner=nn.Identity()), good=nn.Linear(3, 3), last=nn.ReLU())
    with capture(model, what=("output", "grad")) as store:
        model(torch.randn(2, 3)).sum().backward()
    assert list(store) == ["", "bad", "bad.inner", "good", "last"]
    assert store["good"].parent == ""
    assert store["bad"].output is None
    assert "raised RuntimeError" in store["bad"].why["output"]
    with pytest.raises(LookupError, match="raised RuntimeError"):
        store.at("bad")


def test_a_module_that_answers_none_inside_an_except_clause_did_not_raise():
    model = zoo.Function(lambda s, x: None)
    try:
        raise ValueError
    except ValueError:
        with capture(model) as store:
            model(torch.ones(1))
    assert not store[""].why


def test_a_keyboard_interrupt_leaves_no_hook():
    def interrupt(self, x):
        raise KeyboardInterrupt

    model = nn.Sequential(nn.Linear(3, 3), zoo.Function(interrupt))
    with pytest.raises(KeyboardInterrupt), capture(model):
        model(torch.ones(1, 3))
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_the_users_own_error_is_never_masked():
    def fail(self, x):
        raise ValueError("mine")

    model = zoo.Function(fail)
    with pytest.raises(ValueError, match="mine"), capture(model, what=("output", "grad")), edit(model, {"": lambda t: t}):
        model(torch.ones(1))


@pytest.mark.parametrize("case", ["container", "direct", "branch", "replaced", "out_proj", "slice", "nothing"])
def test_coverage_says_why_nothing_came(case):
    def forward(self, x):
        return self.part.forward(x) if case == "direct" else x

    part = nn.Sequential(nn.Linear(3, 3))
    if case == "container":
        model, name, word = nn.ModuleDict({"part": nn.ModuleList([nn.Identity()])}), "part", "container"
    elif case == "out_proj":
        attention = nn.MultiheadAttention(4, 2)
        model = zoo.Function(lambda s, x: s.part(*[torch.ones(2, 1, 4)] * 3)[0], part=attention)
        name, word = "part.out_proj", "uses its weights directly"
    else:
        words = {"direct": ".forward was called directly", "branch": "branch not taken", "replaced": "replaced"}
        model, name, word = zoo.Function(forward, part=part), "part", words.get(case, "nothing chosen ran")
    if case == "slice":
        with pytest.raises(LookupError, match="new container"):
            select(part, part[:1])
        return
    with capture(model, "*" if case != "nothing" else "part") as store:
        if case == "replaced":
            model.part = nn.Identity()
        if case not in ("container",):
            model(torch.ones(1, 3))
    assert word in store.coverage[name].reason
    with pytest.raises(KeyError, match="never ran"):
        store[name]


def test_a_generator_is_left_alone_and_said_so():
    model = zoo.Function(lambda s, x: sum(s.items(x)), items=zoo.Function(lambda s, x: (x[i] for i in range(2))))
    x = torch.ones(2, 3)
    with capture(model) as store:
        assert torch.equal(model(x), x.sum(0))
    assert "generator" in repr(store)
    with pytest.raises(LookupError, match="no tensor but generator"):
        store.at("items")


@dataclass
class Answer:
    logits: torch.Tensor
    past: list


def test_an_edit_keeps_the_type_and_the_graph():
    class Output(OrderedDict):
        pass

    for wrap in (
        lambda t: Output(logits=t, n=3),
        lambda t: Answer(t, [1]),
        lambda t: (t, None),
        lambda t: zoo.Pair(t, t * 2),
    ):
        inner = zoo.Function(lambda s, x, wrap=wrap: wrap(s.a(x)), a=nn.Linear(3, 3))
        model = zoo.Function(lambda s, x: s.inner(x), inner=inner)
        plain = model(torch.ones(1, 3))
        leaf = (
            "[0]"
            if isinstance(plain, tuple) and not hasattr(plain, "_fields")
            else ("[first]" if isinstance(plain, tuple) else "[logits]")
        )
        with edit(model, {f"inner:output{leaf}": lambda t: t * 2}):
            edited = model(torch.ones(1, 3))
        assert type(edited) is type(plain)
        first = edited[0] if isinstance(edited, tuple) else edited["logits"] if isinstance(edited, dict) else edited.logits
        first.sum().backward()
        assert inner.a.weight.grad.eq(2).all()


def test_we_record_what_the_next_module_receives_when_someone_elses_hook_edits_after_ours():
    model, x = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3)), torch.randn(2, 3)
    with capture(model, what=("output", "input")) as store:
        handle = model[0].register_forward_hook(lambda m, a, out: out * 5)
        model(x)
        handle.remove()
    assert torch.equal(store["0"].output, model[0](x) * 5)
    assert torch.equal(store.at("1:input"), store["0"].output)


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_old_style_weight_norm_hooks_are_never_cleared():
    model = nn.utils.weight_norm(nn.Linear(3, 3))
    hooks = dict(model._forward_pre_hooks)
    with capture(model), edit(model, {"": lambda t: t}):
        model(torch.ones(1, 3))
    assert dict(model._forward_pre_hooks) == hooks


def test_parametrizations_are_not_counted_unless_chosen():
    model, x = zoo.make("parametrized")
    with capture(model) as store:
        model(x)
    assert list(store) == ["", "0", "1", "2"]
    with capture(model, "*parametrizations*") as store:
        model(x)
    assert len(store) > 0


def test_a_copy_made_during_a_capture_is_not_recorded():
    model = nn.Sequential(nn.Linear(3, 3))
    with capture(model) as store:
        copy.deepcopy(model)(torch.ones(1, 3))
    assert len(store) == 0


def test_a_lazy_module_changes_its_class_at_its_first_call_and_is_captured():
    model = nn.Sequential(nn.LazyLinear(4), nn.ReLU())
    with capture(model) as store:
        model(torch.ones(2, 3))
    assert store["0"].output.shape == (2, 4)
    assert type(model[0]) is nn.Linear
    assert not model[0]._forward_hooks


def test_meta_and_nested_tensors_flow_through():
    model = nn.Sequential(nn.Linear(3, 3), nn.ReLU())
    with capture(model.to("meta")) as store:
        model(torch.ones(2, 3, device="meta"))
    assert store["0"].output.is_meta
    assert "meta" in repr(store)
    nested = torch.nested.nested_tensor([torch.ones(2, 3), torch.ones(4, 3)], layout=torch.jagged)
    with capture(nn.ReLU()) as empty:
        pass
    assert len(empty) == 0
    relu = nn.ReLU()
    with capture(relu) as store:
        relu(nested)
    assert store[""].output.is_nested
    assert "nested" in repr(store)


def test_each_thread_and_each_model_has_its_own_values():
    model = nn.Sequential(nn.Linear(1, 1), nn.ReLU())
    barrier = threading.Barrier(4)

    def look(number):
        with capture(model, what=("output", "grad")) as store:
            barrier.wait()
            for _ in range(20):
                model(torch.full((1, 1), float(number))).sum().backward()
            barrier.wait()
        expected = model[0](torch.full((1, 1), float(number)))
        return len(store) == 60 and all(torch.equal(t, expected) for t in store.all("0"))

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(look, range(4)))


def test_a_run_in_another_thread_is_not_recorded_and_coverage_says_so():
    model = nn.Linear(1, 1)
    with capture(model) as store:
        thread = threading.Thread(target=lambda: model(torch.ones(1, 1)))
        thread.start()
        thread.join()
    assert len(store) == 0
    assert "another thread" in store.coverage[""].reason


def test_nested_captures_and_two_models_at_once_give_each_its_own():
    one, two, x = nn.Linear(3, 3), nn.Sequential(nn.Linear(3, 3)), torch.randn(2, 3)
    with capture(one) as a, capture(two, "0") as b, capture(one, what="input") as c:
        one(x)
        two(x)
    assert (list(a), list(b), list(c)) == ([""], ["0"], [""])
    with pytest.raises((AttributeError, LookupError), match="what=\\('input', 'output'\\)"):
        c[""].output


def test_edits_and_captures_compose_in_either_order():
    model, x = nn.Sequential(nn.Linear(3, 3), nn.ReLU()), torch.randn(2, 3)
    with capture(model) as outer, edit(model, {"0": lambda t: t * 0 + 7}), capture(model) as inner:
        assert model(x).eq(7).all()
    assert outer["0"].output.eq(7).all()
    assert inner["0"].output.eq(7).all()
    assert outer["1"].output.eq(7).all()


def test_an_edit_changes_every_call_unless_one_is_named_and_counts_within_each_run():
    model, x = nn.ModuleList(), torch.zeros(1, 6)
    model, _ = zoo.make("loop")
    for call, expected in ((None, [1, 1, 1]), (1, [0, 1, 0])):
        with edit(model, {f"act{'' if call is None else f'@{call}'}": lambda t: t * 0 + 1}), capture(model, "act") as store:
            model(x)
            model(x)
        marks = [int(t.eq(1).all()) for t in store.all("act")]
        assert marks == expected * 2
    with pytest.raises(RuntimeError, match="never edited"), edit(model, {"act@9": lambda t: t}):
        model(x)


def test_edits_patch_from_another_run_and_change_inputs():
    model = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 2))
    x, y = torch.randn(2, 3), torch.randn(2, 3)
    with capture(model) as store:
        expected = model(x)
    with edit(model, {"1": store["1"].output}):
        assert torch.equal(model(y), expected)
    with edit(model, {"0:input[input]": x}):
        assert torch.equal(model(y), expected)
    with pytest.raises(ValueError, match="broadcasts"), edit(model, {"1": torch.ones(5, 5)}):
        model(x)
    with pytest.raises(LookupError, match="Did you mean"), edit(nn.Sequential(OrderedDict(relu=nn.ReLU())), {"rel": x}):
        pass
    with pytest.raises(ValueError, match="empty"), edit(model, {}):
        pass


def test_an_edit_of_a_model_that_another_thread_runs_is_refused():
    model, x, found = nn.Sequential(nn.Linear(3, 3), nn.ReLU()), torch.randn(2, 3), []
    with pytest.raises(RuntimeError, match="1 was never edited: '1' ran in another thread"), edit(model, {"1": zero}):
        thread = threading.Thread(target=lambda: found.append(model(x)))
        thread.start()
        thread.join()
    assert torch.equal(found[0], model(x))


def zero(tensor):
    return tensor * 0


def test_a_nested_value_without_a_leaf_is_refused_with_its_leaves_named():
    model = nn.LSTM(2, 3)
    with capture(model) as store:
        model(torch.ones(4, 1, 2))
    with pytest.raises(LookupError, match=r"\[0\], \[1\]\[0\], \[1\]\[1\]"):
        store.at("")
    with pytest.raises(LookupError, match=r"\[0\], \[1\]\[0\], \[1\]\[1\]"), edit(model, {"": lambda t: t}):
        model(torch.ones(4, 1, 2))
    assert store.at(":output[1][0]").shape == (1, 1, 3)


def test_a_tap_sends_nested_values_whole_with_the_caller():
    events = []
    model, x = zoo.make("lstm")
    with tap(model, "*", events.append):
        model(x)
    assert [(e.site.path, e.parent) for e in events] == [("lstm", ""), ("head", ""), ("", None)]
    assert isinstance(events[0].value, tuple)


def test_edits_under_two_names_of_one_module_are_both_made_in_their_order():
    layer = nn.Linear(3, 3)
    model, x = nn.Sequential(OrderedDict(first=layer, second=nn.ReLU(), third=layer)), torch.randn(2, 3)
    with edit(model, {"third@0": lambda t: t + 1, "first": lambda t: t * 2}), capture(model, "first") as store:
        model(x)
    assert torch.equal(store["first@0"].output, (layer(x) + 1) * 2)
    assert torch.equal(store.at("third@1"), layer(((layer(x) + 1) * 2).relu()) * 2)
