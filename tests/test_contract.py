"""The public names and their signatures: what a user may rely on."""

import inspect

import pytest
from torch import nn

import inspector
from inspector import models

P = inspect.Parameter
snapshot, RULES = inspector.snapshot, inspector.RULES  # defaults in the contract
UNSAID = object()  # "(...)" in the contract: there is a default


def contract():
    """The verbs as the design writes them down."""

    def select(model, where="*"): ...
    def tap(model, where, sink, *, what="output"): ...
    def capture(model, where="*", *, what="output", keep=snapshot, budget=None): ...
    def edit(model, changes): ...
    def attribute(
        model, inputs, *, target=None, method="integrated_gradients", layer=None, baselines=None, explain=None, **options
    ): ...
    def attribute_layers(model, inputs, *, target=None, method="grad_cam", where="*", **options): ...
    def score(model, attributions, metrics=UNSAID): ...
    def compare(model, inputs, *, target=None, methods=UNSAID, metrics=UNSAID, layer=None, **options): ...
    def Monitor(model, optimizer=None, *, where="*", what=UNSAID, every=10, to=None, resume=None, rules=RULES): ...
    def show(record, *more, **options): ...
    def describe(record): ...
    def report(path, *records, title="", private=False): ...
    def summary(model, inputs=None): ...

    return locals()


CONTRACT = contract()
NOUNS = ("Attribution", "Assessment", "Call", "Comparison", "Coverage", "Curve", "Finding", "History", "Samples", "Scores")
NOUNS = (*NOUNS, "Store", "Summary")


def parameters(function):
    return inspect.signature(function).parameters


@pytest.mark.parametrize("name", CONTRACT)
def test_a_public_verb_takes_what_the_contract_says_and_needs_nothing_else(name):
    promised, given = parameters(CONTRACT[name]), parameters(getattr(inspector, name))
    positional = [n for n, p in promised.items() if p.kind is P.POSITIONAL_OR_KEYWORD]
    assert [n for n, p in given.items() if p.kind is P.POSITIONAL_OR_KEYWORD] == positional
    for parameter in promised.values():
        have = given[parameter.name]
        assert have.kind is parameter.kind
        assert have.default == parameter.default or (parameter.default is UNSAID and have.default is not P.empty)
    for extra in given.keys() - promised.keys():
        assert given[extra].kind is P.KEYWORD_ONLY
        assert given[extra].default is not P.empty


def test_the_methods_of_the_nouns_and_the_reference_models_take_what_the_contract_says():
    assert list(parameters(inspector.Store.at)) == ["self", "site"]
    assert list(parameters(inspector.Store.all)) == ["self", "site"]
    assert list(parameters(inspector.Monitor.log)) == ["self", "scalars"]
    assert parameters(inspector.Monitor.log)["scalars"].kind is P.VAR_KEYWORD
    assert {"start", "stop", "history", "findings"} <= set(dir(inspector.Monitor))
    assert list(parameters(models.fit))[:2] == ["model", "data"]
    assert parameters(models.fit)["epochs"].kind is P.KEYWORD_ONLY
    assert list(parameters(models.assess))[:2] == ["model", "data"]
    assert parameters(models.assess)["groups"].default is None
    assert list(parameters(models.tasks.mnist))[:2] == ["root", "download"]


def test_the_nouns_have_the_fields_that_the_contract_names():
    assert (inspector.Site("a"), inspector.Site._fields) == (("a", None, "output", ()), ("path", "call", "kind", "leaf"))
    assert inspector.Event._fields == ("site", "value", "module", "parent")
    fields = {
        inspector.Samples: "inputs target evidence valid groups names",
        inspector.Attribution: "values samples target method layer baselines options delta cost heat",
        inspector.Comparison: "attributions scores curves agreement cost",
        inspector.History: "unit scalars stats findings",
        inspector.Finding: "rule name step value threshold message advice source",
        inspector.Store: "at all coverage save load",
    }
    for noun, names in fields.items():
        assert set(names.split()) <= {*dir(noun), *getattr(noun, "__dataclass_fields__", ())}, noun
    kinds = ("output", "input", "grad", "grad_input", "attention", "gates")
    with inspector.capture(nn.Linear(2, 2), what=kinds) as store:
        pass
    assert not [kind for kind in kinds if kind not in store.kinds]


@pytest.mark.parametrize("name", NOUNS)
def test_every_noun_saves_and_loads(name):
    noun = getattr(inspector, name)
    assert callable(noun.save)
    assert callable(noun.load)


def test_every_public_name_is_there_and_documented():
    for name in inspector.__all__:
        value = getattr(inspector, name)
        if inspect.isfunction(value) or inspect.isclass(value):
            assert inspect.getdoc(value), name
    assert set(inspector.__all__) <= set(dir(inspector))


def test_an_unknown_name_says_what_there_is():
    with pytest.raises(AttributeError, match=r"it has .*capture"):
        inspector.catch


def test_the_reference_models_and_tasks_are_there():
    for name in ("CNN", "LSTMClassifier", "AttentionClassifier", "load", "fit", "assess", "tasks"):
        assert hasattr(models, name)
    for name in ("digits", "digit_rows", "mnist", "planted_patches", "planted_steps", "planted_words"):
        assert callable(getattr(models.tasks, name))


def test_the_version_comes_from_one_place():
    from importlib.metadata import version

    assert version("inspector") == inspector.__version__


def test_the_tables_name_what_the_contract_names():
    for name in ("saliency", "input_x_gradient", "integrated_gradients", "deep_lift", "occlusion", "grad_cam"):
        assert name in inspector.METHODS
    for name in ("deletion", "insertion"):
        assert name in inspector.METRICS
