"""Words are judged by their numbers: each comes from the record, and each doubt is said."""

import re
import string
from dataclasses import replace

import made_records as made
import numpy as np
import pytest
import torch
from torch import nn

from inspector import capture, describe
from inspector.records import Comparison, Coverage, Finding, History, Samples, Status, Store, Task
from inspector.words.english import ENGLISH
from inspector.words.facts import target_of, wilson
from inspector.words.say import Say

SPOKEN = {
    "assessment": made.assessment,
    "attribution": made.image_attribution,
    "series": made.series_attribution,
    "tokens": made.token_attribution,
    "rows": made.row_attribution,
    "function": lambda: replace(made.row_attribution(), target=abs, baselines=abs),
    "own baseline": lambda: replace(made.row_attribution(), target=None, baselines=torch.rand(1, 18)),
    "comparison": made.images_compared,
    "history": made.history,
    "findings": lambda: made.history().findings,
    "finding": lambda: made.history().findings[0],
    "store": made.store,
    "call": lambda: made.store()["features.1.conv"],
    "summary": made.summarized,
    "samples": lambda: made.token_attribution().samples,
    "task": lambda: Task(made.image_attribution().samples, made.image_attribution().samples, "toy"),
    "scores": lambda: made.images_compared().scores,
    "curve": lambda: made.images_compared().curves["random"]["deletion"],
    "coverage": lambda: made.store().coverage,
}


@pytest.mark.parametrize("name", SPOKEN)
def test_a_record_is_told_in_full_sentences_without_a_hole(name):
    text = describe(SPOKEN[name]())
    assert all(line.endswith((".", "!", "?")) for line in text.splitlines())
    assert not re.search(r"\b(1|One|one) \w+s (are|were)\b", text)
    assert not re.search(r"[{}]|None|nan\b", text)
    assert "  " not in text


def test_a_second_language_is_one_table():
    shouted = {key: sentence.upper() if "{" not in sentence else f"!{sentence}" for key, sentence in ENGLISH.items()}
    assert describe(made.assessment(), words=shouted).startswith("!")
    assert describe(made.assessment(), words={}) == describe(made.assessment())


# Words of the language itself; names, reasons and advice in the records of these tests have none of them.
OF_ENGLISH = {"the", "of", "and", "is", "are", "with", "samples", "sample", "not", "than", "has", "from", "calls", "modules"}
OF_ENGLISH |= {
    "average",
    "interval",
    "step",
    "steps",
    "number",
    "model",
    "values",
    "positions",
    "everywhere",
    "function",
    "tensor",
}


@pytest.mark.parametrize("name", SPOKEN)
def test_nothing_but_the_table_is_english(name):
    other = {key: re.sub(r"[A-Za-z]+(?![^{]*\})", "ж", sentence) for key, sentence in ENGLISH.items()}
    record = plain(SPOKEN[name]())
    left = {word.lower() for word in re.findall(r"[A-Za-z]+", describe(record, words=other))}
    assert left & OF_ENGLISH == set()


def plain(record):
    """The record without words of its own: reasons, messages and warnings are told as they are."""
    if isinstance(record, Comparison):
        return replace(record, warnings=())
    if isinstance(record, History):
        return replace(record, findings=[plain(found) for found in record.findings])
    if isinstance(record, Finding):
        return replace(record, message="wrong", advice="")
    if isinstance(record, list):
        return [plain(item) for item in record]
    if isinstance(record, Coverage):
        return Coverage({path: Status(s.module, s.calls, None if s.calls else "gone") for path, s in record.items()})
    if isinstance(record, Store):
        for call in (record[name] for name in record):
            call.why = dict.fromkeys(call.why, "gone")
        kept = plain(record.coverage)
        record.coverage_of = lambda: kept
    return record


def test_every_sentence_for_one_has_a_sentence_for_many_and_takes_no_other_fields():
    fields = {key: {name for _, name, _, _ in string.Formatter().parse(text) if name} for key, text in ENGLISH.items()}
    for key in (key for key in ENGLISH if key.endswith(".one") and key != "finding.one"):
        many = key.removesuffix(".one")
        assert many in ENGLISH, key
        assert fields[key] <= fields[many] | {"n"}, key


@pytest.mark.parametrize(
    "record",
    [
        lambda: made.image_attribution(n=1),
        lambda: made.image_attribution(n=1).samples,
        lambda: made.summarized(modules=0),
        lambda: made.store(modules=0),
        lambda: made.comparison_of(lambda seed: made.image_attribution(n=1), labels=("saliency", "random")),
        lambda: made.assessed(torch.tensor([[1, 0], [0, 0]]), "one", 2),
        lambda: History("epoch", {"loss": (np.arange(1), np.ones(1))}),
        lambda: Coverage({"a": Status("Linear", 1)}),
    ],
)
def test_one_is_told_as_one(record):
    text = describe(record())
    assert not re.search(r"\b(1|one) (samples|methods|modules|rows|calls|steps|epochs|classes|sites|controls)\b", text, re.I)


def test_a_batch_of_none_explains_nothing():
    some = made.image_attribution(n=2)
    none = replace(some, samples=some.samples[:0], values=some.values[:0], target=None, delta=None)
    assert describe(none) == "integrated_gradients explains nothing: the batch is empty."


def test_what_is_not_finite_is_not_called_zero():
    record = made.image_attribution(2)
    text = describe(replace(record, values=torch.full_like(record.values, float("nan"))))
    assert "not finite" in text
    assert "zero" not in text


def test_groups_that_fare_alike_have_no_best_and_no_worst():
    record = made.assessment()
    rows = {label: replace(g, accuracy=0.9) for label, g in record.groups["age"].items()}
    text = describe(replace(record, groups={"age": rows}))
    assert "By age the groups fare alike: 90.0% right" in text
    assert "worst for" not in text


def test_a_value_that_is_missing_by_nature_is_not_missed():
    model = nn.Sequential(nn.LSTM(3, 4), nn.Identity())
    with capture(model, what=("output", "gates")) as store:
        model(torch.randn(5, 2, 3))
    assert "has no value" not in describe(store)


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
    assert Say().percent(share) == text
    assert Say().percent(1 - 1e-9) == "more than 99.9%"


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
    assert "Of the attribution 90.0% speaks for the target and 10.0% against" in text
    assert "90.0% of the attribution lies on the true evidence, which covers 10.0% of the positions (9.0 times" in text
    assert "miss the sum that the method promises by up to 40 (sample 0; 50.0% of the largest sum)" in text


def test_maps_that_are_zero_or_broken_are_no_explanation():
    record = made.image_attribution(2)
    values = record.values.clone()
    values[0] = 0
    values[1, 0, 0, 0] = float("nan")
    text = describe(replace(record, values=values))
    assert "One of 2 samples got zero everywhere" in text
    assert "One of the values is not finite" in text
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
    assert f"the best is integrated_gradients with {mean:.3g} on average (95% interval {low:.3g} to {high:.3g})" in text
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
    assert f"The methods disagree: Spearman {sum(pairs) / len(pairs):.2f} on average" in text
    assert "The methods agree: " in describe(replace(record, agreement={"spearman": torch.ones(4, 4)}))


def test_all_other_agreement_is_one_sentence_with_every_number():
    record = made.images_compared()
    names = ("spearman", "top_k", "sign", "overlap", "distance")
    pairs = torch.tensor([[1, 0.8, 0.5, 9], [0.8, 1, 0.2, 9], [0.5, 0.2, 1, 9], [9, 9, 9, 1]])
    paragraphs = describe(replace(record, agreement=dict.fromkeys(names, pairs))).splitlines()
    least = "(least saliency and grad_cam@features.4: "
    [told] = [p for p in paragraphs if "any two methods" in p]
    assert told == (
        f"On average any two methods share 50.0% of their strongest positions {least}20.0%), give the same sign to 50.0% of "
        f"the positions {least}20.0%), agree by overlap 0.50 {least}0.20) and agree by distance 0.50 {least}0.20)."
    )


def test_warnings_of_the_record_are_passed_on():
    assert "Careful: grad_cam@features.4 uses the layer" in describe(made.images_compared())


def test_a_method_beaten_by_some_controls_only_says_by_which():
    record = made.images_compared()
    by_label = {
        label: {"deletion": torch.rand(6) * 0.01 + level} for label, level in zip(record.labels, (1, 5, 5, 4), strict=True)
    }
    by_label["edges"] = {"deletion": torch.zeros(6)}
    scores = replace(record.scores, by_label=by_label, curves={})
    attributions = {**record.attributions, "edges": record.attributions["random"]}
    text = describe(replace(record, scores=scores, attributions=attributions, controls=("random", "edges")))
    assert "1 of 3 methods beat the random control here beyond chance: integrated_gradients." in text
    assert "None beats the edges control." in text


# history


def test_findings_come_first_and_in_the_order_in_which_they_happened():
    text = describe(made.history())
    assert text.index("Since step 60") < text.index("Since step 100") < text.index("loss went")


def test_each_scalar_is_told_from_its_first_to_its_last_value():
    record = made.history()
    values = record.scalars["loss"][1]
    at = record.scalars["loss"][0][values.argmin()]
    expected = f"loss went from {values[0]:.3g} to {values[-1]:.3g}, at its lowest {values.min():.3g} at step {at}."
    assert expected in describe(record)


def test_a_loss_that_broke_says_when():
    steps = np.arange(10)
    record = History("epoch", {"loss": (steps, np.where(steps < 4, 1.0 / (1 + steps), np.nan))})
    assert "loss was not finite at 6 of 10 epochs, first at epoch 4." in describe(record)


def test_fitting_only_the_training_data_is_told_and_a_healthy_run_is_not_accused():
    steps = np.arange(20)
    fall = np.exp(-steps / 5)
    turned = np.where(steps < 8, 1 - 0.1 * steps, 0.2 + 0.05 * (steps - 7))
    sick = History("epoch", {"loss": (steps, fall), "val_loss": (steps, turned)})
    assert "val_loss has risen from 0.25 at epoch 8 to 0.8 while loss went on falling to 0.0224" in describe(sick)
    healthy = History("epoch", {"loss": (steps, fall), "val_loss": (steps, fall + 0.1)})
    assert "has risen" not in describe(healthy)


def test_no_finding_is_no_proof_of_health():
    assert "Rules look only for what they know" in describe(made.history(findings=False))
    assert "no rule could look" in describe(History("step", {"loss": (np.arange(3), np.ones(3))}))
    assert "nothing was recorded" in describe(History())
    assert describe([]) == "There is no finding."


# store and summary


def test_a_store_tells_the_first_broken_site_and_its_dead_channels():
    record = made.store()
    record["features.2.conv"].values["output"][0, 0, 0, 0] = float("nan")
    record["features.5.conv"].values["output"][0, 0, 0, 0] = float("inf")
    text = describe(record)
    assert "Not finite: features.2.conv and features.5.conv. It began at features.2.conv." in text
    assert "features.0.conv (1 of 8)" in text
    assert "aux (the branch was not taken)" in text
    assert "grad has no value at one site: backward did not run inside the block." in text


def test_an_empty_store_says_so():
    assert describe(Store(("output",))) == "Nothing was captured."


def test_a_summary_that_was_not_run_claims_nothing():
    record = replace(made.summarized(), multiply_adds=None, output_bytes=None, saved_bytes=None, seconds=None)
    assert "shapes, work and memory are not known" in describe(record)


def test_samples_tell_their_rarest_and_most_common_class():
    record = Samples(torch.zeros(5, 3), torch.tensor([0, 1, 1, 1, 0]), names={"classes": ["cat", "dog"]})
    assert "the rarest is cat with 2, the most common dog with 3." in describe(record)
