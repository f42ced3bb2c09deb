"""Words are judged by their numbers: each comes from the record, and each doubt is said."""

import re
import string
from dataclasses import replace

import made_records as made
import pytest
import torch

from inspector import describe
from inspector.records import Comparison
from inspector.words.english import ENGLISH
from inspector.words.facts import target_of, wilson
from inspector.words.say import Say, percent

SPOKEN = {
    "assessment": made.assessment,
    "attribution": made.image_attribution,
    "comparison": made.images_compared,
}


@pytest.mark.parametrize("name", SPOKEN)
def test_a_record_is_told_in_full_sentences_without_a_hole(name):
    text = describe(SPOKEN[name]())
    assert text.endswith((".", "last"))
    assert not re.search(r"[{}]|None|nan\b", text)
    assert "  " not in text


def test_a_second_language_is_one_table():
    shouted = {key: sentence.upper() if "{" not in sentence else f"!{sentence}" for key, sentence in ENGLISH.items()}
    assert describe(made.assessment(), words=shouted).startswith("!")
    assert describe(made.assessment(), words={}) == describe(made.assessment())


def test_every_sentence_is_a_template_of_named_fields():
    for key, sentence in ENGLISH.items():
        for _, name, spec, conversion in string.Formatter().parse(sentence):
            assert name is None or name.isidentifier(), key
            assert (spec or "") + (conversion or "") == "", key


def test_what_there_are_no_words_for_is_refused():
    with pytest.raises(TypeError, match="Assessment"):
        describe(3)


@pytest.mark.parametrize(("share", "text"), [(0.5, "50.0%"), (0.0, "0.0%"), (1e-6, "less than 0.1%"), (1.0, "100.0%")])
def test_percentages_round_nothing_away(share, text):
    assert percent(share) == text
    assert percent(1 - 1e-9) == "more than 99.9%"


def test_lists_are_bounded():
    assert Say().listing("abc") == "a, b and c"
    assert Say().listing("a") == "a"
    assert Say().listing(range(20)) == "0, 1, 2, 3 and 16 more"


@pytest.mark.parametrize(("rate", "n"), [(0.0, 10), (1.0, 10), (0.5, 1), (0.9, 1000)])
def test_the_interval_of_a_share_holds_it_and_stays_within_bounds(rate, n):
    low, high = wilson(rate, n)
    assert 0 <= low <= rate <= high <= 1
    # Wilson's bounds are the shares whose own normal interval just reaches the observed one
    for bound in (low, high):
        if 0 < bound < 1:
            assert abs(rate - bound) == pytest.approx(1.959964 * (bound * (1 - bound) / n) ** 0.5, rel=1e-6)


# assessment


def test_accuracy_is_told_with_its_interval():
    record = made.assessment()
    low, high = wilson(record.accuracy, record.n)
    text = describe(record)
    assert f"of {record.n} samples the model answers {100 * record.accuracy:.1f}% right" in text
    assert f"from {100 * low:.1f}% to {100 * high:.1f}%" in text


def test_a_gap_that_may_be_chance_is_called_so_and_a_sure_one_is_not():
    record = made.assessment()
    assert "the gap may be chance" in describe(record)
    rows = record.groups["age"]
    sure = replace(record, groups={"age": {"a": replace(rows["30 to 60"], n=3000), "b": replace(rows["over 60"], n=3000)}})
    assert "the gap may be chance" not in describe(sure)
    assert "do not overlap" in describe(sure)


def test_small_groups_are_named():
    assert "over 60 (12)" in describe(made.assessment())


def test_no_mistake_is_not_called_perfection():
    whole = made.assessed(torch.diag(torch.tensor([5, 5])), "two", 2)
    assert "does not mean that it never would" in describe(whole)


def test_a_class_that_is_never_answered_is_named():
    assert "It never answers 1." in describe(made.assessed(torch.tensor([[5, 0], [3, 0]]), "two", 2))


def test_an_assessment_of_nothing_says_nothing():
    assert "nothing can be said" in describe(replace(made.assessment(), n=0))


# attribution


def test_concentration_and_evidence_are_what_they_are_by_hand():
    heat = torch.zeros(1, 1, 10, 10)
    heat[0, 0, 0, :10] = 9.0
    heat[0, 0, 1, 0] = -10.0
    record = made.image_attribution(1, size=(10, 10))
    evidence = torch.zeros(1, 10, 10, dtype=torch.bool)
    evidence[0, 0] = True
    record = replace(record, values=heat, samples=replace(record.samples, evidence=evidence), delta=torch.tensor([40.0]))
    text = describe(record)
    assert "(10 of 100) carry 91.0%" in text  # -10 and nine of the ten nines
    assert "90.0% of it speaks for the target and 10.0% against" in text
    assert "90.0% of the attribution lies on the true evidence, which covers 10.0% of the positions (9.0 times" in text
    assert "miss the sum that the method promises by up to 40 (sample 0; 50.0% of the largest sum)" in text


def test_maps_that_are_zero_or_broken_are_no_explanation():
    record = made.image_attribution(2)
    values = record.values.clone()
    values[0] = 0
    values[1, 0, 0, 0] = float("nan")
    text = describe(replace(record, values=values))
    assert "1 of 2 samples got zero everywhere" in text
    assert "1 of the values are not finite" in text
    assert "carry" not in describe(replace(record, values=torch.zeros_like(values)))


def test_a_coarse_map_says_what_it_cannot_know():
    assert "7×7 values for an input of 28×28" in describe(made.image_attribution(heat=(7, 7)))


def test_a_method_that_promises_no_sum_is_not_held_to_one():
    assert "does not claim" in describe(replace(made.image_attribution(), delta=None))


@pytest.mark.parametrize(
    ("target", "words"),
    [(1, "one"), (None, "the output"), (torch.tensor([2, 2]), "two"), (torch.tensor([0, 2]), ""), (len, "function len")],
)
def test_a_target_is_told_by_its_name(target, words):
    assert target_of(replace(made.image_attribution(2), target=target)) == words


# comparison


def test_the_best_method_is_told_with_its_interval_and_its_ties():
    record = made.images_compared()
    mean, low, high = record.scores.interval("integrated_gradients", "deletion")
    text = describe(record)
    assert f"best is integrated_gradients with {mean:.3g} [{low:.3g}, {high:.3g}]" in text
    assert "cannot be told apart" in text


def losing() -> Comparison:
    record = made.images_compared()
    chance = {label: {"deletion": torch.linspace(0, 1, 6)} for label in record.labels}
    return replace(record, scores=replace(record.scores, by_label=chance, curves={}))


def test_when_no_method_beats_the_control_it_is_said():
    assert "No method beats the random control here beyond chance." in describe(losing())


def test_disagreement_is_told_with_its_number():
    record = made.images_compared()
    at = [record.labels.index(label) for label in record.methods]
    pairs = [record.agreement["spearman"][i, j].item() for i in at for j in at if i < j]
    text = describe(record)
    assert f"The methods disagree: spearman {sum(pairs) / len(pairs):.2f} on average" in text
    assert "The methods agree: " in describe(replace(record, agreement={"spearman": torch.ones(4, 4)}))


def test_warnings_of_the_record_are_passed_on():
    assert "Careful: grad_cam@features.4 uses the layer" in describe(made.images_compared())
