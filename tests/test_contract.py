"""The public names and their signatures: what a user may rely on."""

import inspect

import pytest

import inspector
from inspector import models

P = inspect.Parameter
SIGNATURES = {
    "select": "model, where",
    "tap": "model, where, sink, *, what",
    "capture": "model, where, *, what, keep, budget",
    "edit": "model, changes",
    "attribute": "model, inputs, *, target, method, layer, baselines, explain, **options",
    "attribute_layers": "model, inputs, *, target, method, where, **options",
    "score": "model, attributions, metrics",
    "compare": "model, inputs, *, target, methods, metrics, layer, **options",
    "Monitor": "model, optimizer, *, where, what, every, to, resume, rules",
    "show": "record, *more, **options",
    "describe": "record",
    "report": "path, *records, title, private",
    "summary": "model, inputs",
}
DEFAULTS = {
    ("select", "where"): "*",
    ("capture", "where"): "*",
    ("capture", "what"): "output",
    ("capture", "keep"): inspector.snapshot,
    ("capture", "budget"): None,
    ("tap", "what"): "output",
    ("attribute", "method"): "integrated_gradients",
    ("attribute_layers", "method"): "grad_cam",
    ("attribute_layers", "where"): "*",
    ("Monitor", "where"): "*",
    ("Monitor", "every"): 10,
    ("Monitor", "rules"): inspector.RULES,
    ("report", "title"): "",
    ("report", "private"): False,
    ("summary", "inputs"): None,
}
NOUNS = ("Attribution", "Assessment", "Call", "Comparison", "Coverage", "Curve", "Finding", "History", "Samples", "Scores")
NOUNS = (*NOUNS, "Store", "Summary")


def parameters(name):
    return inspect.signature(getattr(inspector, name)).parameters


@pytest.mark.parametrize("name", SIGNATURES)
def test_a_public_verb_takes_what_the_contract_says(name):
    kinds = {P.VAR_POSITIONAL: "*", P.VAR_KEYWORD: "**"}
    have = [(kinds.get(p.kind, "") + p.name, p.kind) for p in parameters(name).values()]
    words = [word.strip() for word in SIGNATURES[name].split(",")]
    keyword_only = False
    for word in words:
        if word == "*":
            keyword_only = True
            continue
        kind = dict(have).get(word)
        assert kind is not None, f"{name} lacks {word}"
        assert not (keyword_only and not word.startswith("*")) or kind in (P.KEYWORD_ONLY,), f"{name}: {word} is positional"
        keyword_only = keyword_only or word.startswith("*")


@pytest.mark.parametrize(("name", "parameter"), DEFAULTS)
def test_a_default_is_what_the_contract_says(name, parameter):
    assert parameters(name)[parameter].default == DEFAULTS[name, parameter]


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
