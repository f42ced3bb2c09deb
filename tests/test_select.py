"""Selection: a glob means what fnmatch says, every alias finds its module, wrappers leave no trace in names."""

from fnmatch import fnmatchcase

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn.parallel import DataParallel

from inspector import select
from inspector.hooks.select import aliases, names, unwrap

keys = st.one_of(st.text("ab1_", min_size=1, max_size=3), st.text("a*?[]!:@' é\n", min_size=1, max_size=3))
globs = st.text("ab1_.*?[]!:é", max_size=6)
kinds = st.sampled_from([nn.Linear, nn.ReLU, nn.Identity])


class Tree(nn.Module):
    """Any named children, also names that no attribute could have."""

    def __init__(self, children):
        super().__init__()
        for name, child in children.items():
            self._modules[name] = child


leaf_modules = kinds.map(lambda kind: kind(1, 1) if kind is nn.Linear else kind())
trees = st.recursive(leaf_modules, lambda inner: st.dictionaries(keys, inner, max_size=3).map(Tree), max_leaves=8)


def plain_names(model):
    return dict(model.named_modules(remove_duplicate=False))


@given(trees, globs)
def test_a_glob_selects_what_fnmatch_selects(model, glob):
    expected = {name: m for name, m in plain_names(model).items() if name == glob or fnmatchcase(name, glob)}
    try:
        found = select(model, glob)
    except LookupError as error:
        assert not expected
        assert repr(glob) in str(error)
    else:
        assert found == expected
        assert list(found) == list(expected)


@given(trees, kinds)
def test_a_type_selects_its_instances_and_a_predicate_what_it_says(model, kind):
    expected = {name: m for name, m in plain_names(model).items() if isinstance(m, kind)}
    if not expected:
        with pytest.raises(LookupError, match=kind.__name__):
            select(model, kind)
        return
    assert select(model, kind) == expected
    assert select(model, lambda name, module: isinstance(module, kind)) == expected
    assert select(model, [kind, kind]) == expected


@given(trees)
def test_every_module_is_found_by_its_name_and_by_itself(model):
    for name, module in plain_names(model).items():
        assert select(model, name)[name] is module
        assert list(select(model, module).values()) == [module]
    assert select(model, "*") == select(model) == plain_names(model)
    assert select(model, "") == {"": model}


@given(trees, globs, globs)
def test_a_collection_selects_the_union_in_the_models_order(model, one, other):
    def found(where):
        try:
            return select(model, where)
        except LookupError:
            return None

    alone = [found(one), found(other)]
    if None in alone:
        assert found([one, other]) is None
    else:
        union = alone[0] | alone[1]
        assert list(found([one, other])) == [name for name in plain_names(model) if name in union]


@given(trees)
def test_names_do_not_depend_on_what_wraps_the_model(model):
    wrapped = DataParallel(model)
    assert names(wrapped) == names(model) == plain_names(model)
    assert unwrap(wrapped) is model
    assert select(wrapped, "*") == select(model, "*")


def test_a_child_that_is_called_module_keeps_its_name():
    model = nn.Sequential()
    model.add_module("module", nn.Sequential(nn.ReLU()))
    assert list(names(model)) == ["", "module", "module.0"]


def test_a_compiled_submodule_has_the_users_name():
    model = nn.Sequential(torch.compile(nn.Linear(1, 1), backend="eager"), nn.ReLU())
    assert list(select(model)) == ["", "0", "1"]
    assert isinstance(select(model, "0")["0"], nn.Linear)
    assert list(select(model, model[0])) == ["0"]


def test_every_alias_of_a_shared_module_finds_it_once():
    shared = nn.Linear(1, 1)
    model = nn.ModuleDict({"one": shared, "two": nn.Sequential(shared)})
    assert list(select(model, "*")) == ["", "one", "two"]
    assert select(model, "two.0") == {"two.0": shared}
    assert select(model, ["one", "two.0"]) == {"one": shared}
    assert aliases(names(model), select(model, "one")) == {"two.0": "one"}


def test_a_module_inside_itself_ends():
    model = nn.Sequential(nn.ReLU())
    model.me = model[0].parent = model
    assert select(model, "0") == {"0": model[0]}


def test_parametrizations_are_chosen_only_by_name():
    model = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(2, 2)))
    assert list(select(model)) == ["", "0"]
    assert list(select(model, "*parametrizations.weight")) == ["0.parametrizations.weight"]
    assert "0.parametrizations.weight.0" in select(model, lambda name, module: True)


def test_a_glob_without_a_match_names_what_is_near():
    model = nn.ModuleDict({"blocks": nn.Sequential(nn.ReLU()), "head": nn.ReLU()})
    with pytest.raises(LookupError, match=r"'block' matches no module of ModuleDict; it has 4.*Did you mean 'blocks'"):
        select(model, "block")


@pytest.mark.parametrize(
    "where", [3, None, int, nn.Linear(1, 1), [], lambda name, module: False, nn.Sequential(nn.ReLU())[:1]]
)
def test_what_selects_nothing_is_an_error_that_says_so(where):
    with pytest.raises((LookupError, TypeError)) as caught:
        select(nn.Sequential(nn.ReLU()), where)
    assert len(str(caught.value)) > 30


def test_selecting_does_not_consume_an_iterable_twice():
    model = nn.Sequential(nn.ReLU(), nn.Linear(1, 1), nn.ReLU())
    assert list(select(model, (name for name in ["0", "2"]))) == ["0", "2"]
