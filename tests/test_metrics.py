"""Every metric equals a slow definition, for images, padded sequences, tokens and rows."""

import numpy as np
import pytest
import slow_metrics as slow
import torch

from inspector import Attribution, Samples, attribute
from inspector.metrics import METRICS, fidelity, removal, robustness, sanity
from inspector.metrics.surface import surface
from inspector.records import Curve

N = 4
LENGTHS = torch.tensor([9, 5, 7, 1])


def _map(samples, shape, axes, method="by hand"):
    generator = torch.Generator().manual_seed(5)
    values = torch.randn(N, *shape, generator=generator).round(decimals=1)  # with ties
    return Attribution(values, samples, torch.tensor([0, 1, 2, 1]), method, axes=axes)


def pixels():
    x = torch.randn(N, 2, 6, 5)
    base = x.mean((0, 2, 3), keepdim=True).expand_as(x)
    evidence = torch.rand(N, 6, 5) > 0.7
    return slow.Case(slow.pixel_model(), _map(Samples(x, evidence=evidence), (2, 6, 5), (2, 3)), x, (2, 3), base)


def steps():
    x, valid = torch.randn(N, 9, 3), torch.arange(9) < LENGTHS[:, None]
    base = (x * valid[..., None]).sum((0, 1)) / valid.sum()
    samples = Samples((x, valid), valid=valid, evidence=(torch.rand(N, 9) > 0.6) & valid)
    return slow.Case(slow.StepModel(), _map(samples, (9, 3), (1,)), x, (1,), base.expand_as(x))


def tokens():
    x = torch.randint(1, 11, (N, 8))
    samples = Samples(x, evidence=torch.rand(N, 8) > 0.5)
    return slow.Case(slow.TokenModel(), _map(samples, (8, 6), (1,)), x, (1,), torch.zeros_like(x))


def rows():
    x = torch.randn(N, 7)
    samples = Samples(x, evidence=torch.rand(N, 7) > 0.5)
    return slow.Case(slow.row_model(), _map(samples, (7,), (1,)), x, (1,), x.mean(0, keepdim=True).expand_as(x))


@pytest.fixture(params=[pixels, steps, tokens, rows], ids=lambda make: make.__name__)
def case(request):
    return request.param()


def near(found, wanted, tolerance=2e-5):
    torch.testing.assert_close(
        torch.as_tensor(found).double(),
        torch.as_tensor(np.asarray(wanted)).double(),
        rtol=1e-4,
        atol=tolerance,
        equal_nan=True,
    )


@pytest.mark.parametrize("order", ["most", "least"])
@pytest.mark.parametrize("steps", [1, 4, 1000])
def test_deletion_and_insertion_equal_one_step_at_a_time(case, order, steps):
    curve = removal.deletion(case.model, case.attribution, steps=steps, order=order)
    near(curve.y, slow.removal_curve(case, steps, order=order))
    near(curve.area, slow.area(slow.removal_curve(case, steps, order=order)))
    curve = removal.insertion(case.model, case.attribution, steps=steps, order=order)
    near(curve.y, slow.removal_curve(case, steps, insert=True, order=order))


def test_the_gap_is_the_area_between_least_and_most_relevant_first(case):
    wanted = [slow.area(slow.removal_curve(case, 20, order=order)) for order in ("least", "most")]
    near(METRICS["deletion_gap"](case.model, case.attribution), wanted[0] - wanted[1])


def test_comprehensiveness_and_sufficiency_equal_eraser(case):
    for name, sufficient in (("comprehensiveness", False), ("sufficiency", True)):
        near(METRICS[name](case.model, case.attribution), slow.eraser(case, removal.SHARES, sufficient=sufficient))


def _removals(case, shares, draws):
    laid = surface(case.attribution)
    return [fidelity.random_removals(laid, fidelity._per_sample(laid, s, draws), i) for i, s in enumerate(shares)]


def test_infidelity_equals_its_definition_on_the_same_draws(case):
    removed = _removals(case, [0.3], 12)[0]
    assert (removed.sum(-1) <= surface(case.attribution).count).all()
    near(fidelity.infidelity(case.model, case.attribution, share=0.3, draws=12), slow.infidelity(case, removed))


def test_sensitivity_n_equals_its_definition_on_the_same_draws():
    for case in (pixels(), rows()):
        removed = _removals(case, [0.3, 0.6], 12)
        found = fidelity.sensitivity_n(case.model, case.attribution, sizes=(0.3, 0.6), draws=12)
        near(found, slow.sensitivity_n(case, removed))


def test_a_random_removal_takes_the_number_asked_for_and_never_padding(case):
    laid = surface(case.attribution)
    counts = fidelity._per_sample(laid, 0.4, 9)
    removed = fidelity.random_removals(laid, counts, 3)
    assert torch.equal(removed.sum(-1), counts)
    assert not (removed & ~laid.valid).any()


def test_shape_metrics_equal_their_definitions(case):
    maps = [case.heat[i][case.valid[i]].numpy() for i in range(N)]
    near(METRICS["sparseness"](case.model, case.attribution), [slow.gini(m) for m in maps])
    near(METRICS["complexity"](case.model, case.attribution), [slow.entropy(m) for m in maps])


def _truths(case):
    truth = case.samples.evidence.flatten(1)
    for i in range(N):
        inside = case.valid[i]
        yield case.heat[i][inside].abs().numpy(), truth[i][inside].numpy()


def test_ranking_of_evidence_equals_scikit_learn(case):
    from sklearn.metrics import average_precision_score, roc_auc_score

    none = float("nan")
    pairs = list(_truths(case))
    roc = [roc_auc_score(t, v) if 0 < t.sum() < len(t) else none for v, t in pairs]
    near(METRICS["auroc"](case.model, case.attribution), roc)
    near(
        METRICS["auroc"](case.model, case.attribution),
        [slow.auroc(v, t) if 0 < t.sum() < len(t) else none for v, t in pairs],
    )
    found = [average_precision_score(t, v) if t.any() else none for v, t in pairs]
    near(METRICS["auprc"](case.model, case.attribution), found)


def test_mass_rank_and_pointing_equal_their_definitions(case):
    none, pairs = float("nan"), list(_truths(case))
    near(
        METRICS["relevance_mass"](case.model, case.attribution),
        [v[t].sum() / v.sum() if t.any() else none for v, t in pairs],
    )
    rank = [slow.relevance_rank(v, t) if t.any() else none for v, t in pairs]
    near(METRICS["relevance_rank"](case.model, case.attribution), rank, tolerance=0.06)
    point = [t[v == v.max()].mean() if t.any() else none for v, t in pairs]
    near(METRICS["pointing_game"](case.model, case.attribution), point)


def test_areas_under_thresholds_equal_scikit_learn(case):
    pairs = list(_truths(case))
    enough = [i for i, (v, t) in enumerate(pairs) if t.any() and len(np.unique(v)) > 1]
    for number, name in enumerate(("aup", "aur")):
        found = METRICS[name](case.model, case.attribution)
        near(found[enough], [slow.threshold_areas(*pairs[i])[number] for i in enough])


def test_infidelity_without_scaling_equals_captum():
    from captum.metrics import infidelity

    case, draws = rows(), 12
    removed = _removals(case, [0.3], draws)[0].float()  # (draws, batch, positions)
    mine = fidelity.infidelity(case.model, case.attribution, share=0.3, draws=draws, normalize=False)
    at = iter(range(draws))

    def perturb(x):
        mask = torch.stack([removed[next(at)] for _ in range(len(x) // N)], 1).reshape(-1, 7)  # captum repeats each sample
        base = case.base.repeat_interleave(len(x) // N, 0)
        return mask, torch.where(mask.bool(), base, x)

    args = (case.model, perturb, case.explained, case.attribution.values)
    theirs = infidelity(*args, target=case.attribution.target, n_perturb_samples=draws, max_examples_per_batch=N)
    near(mine, theirs)


def test_completeness_is_the_claim_and_nan_where_there_is_none():
    model, x, target = slow.row_model(), torch.randn(N, 7), torch.tensor([0, 1, 2, 1])
    for method in ("integrated_gradients", "saliency"):
        made = attribute(model, x, target=target, method=method)
        found = METRICS["completeness"](model, made)
        if method == "saliency":
            assert found.isnan().all()
            continue
        with torch.no_grad():
            difference = (model(x) - model(torch.zeros_like(x))).gather(1, target[:, None])[:, 0]
        near(found, ((made.values.sum(1) - difference).abs() / difference.abs()).numpy(), 1e-4)


def test_max_sensitivity_and_lipschitz_equal_explaining_one_copy_at_a_time():
    model, x = slow.row_model(), torch.randn(N, 7)
    made = attribute(model, x, target=1, method="integrated_gradients", n_steps=8)
    near_by = robustness.nearby(made, 0.1, 5, 0)
    relative, lipschitz = [], []
    for moved in near_by:
        change = (attribute(model, moved, target=1, method="integrated_gradients", n_steps=8).values - made.values).norm(
            dim=1
        )
        relative.append(change / made.values.norm(dim=1))
        lipschitz.append(change / (moved - x).norm(dim=1))
    near(robustness.max_sensitivity(model, made, radius=0.1, draws=5), torch.stack(relative).amax(0).numpy(), 1e-4)
    near(robustness.local_lipschitz(model, made, radius=0.1, draws=5), torch.stack(lipschitz).amax(0).numpy(), 1e-4)


@pytest.mark.filterwarnings("ignore:Input Tensor:UserWarning")
def test_max_sensitivity_equals_captum_on_the_same_draws():
    from captum.attr import Saliency
    from captum.metrics import sensitivity_max

    model, x = slow.row_model(), torch.randn(N, 7)
    made = attribute(model, x, target=1, method="saliency")
    near_by = iter(robustness.nearby(made, 0.1, 5, 0))
    theirs = sensitivity_max(
        Saliency(model).attribute,
        x,
        lambda inputs: (next(near_by),),
        n_perturb_samples=5,
        max_examples_per_batch=N,
        target=1,
    )
    near(robustness.max_sensitivity(model, made, radius=0.1, draws=5), theirs.numpy(), 1e-4)


def test_randomization_equals_explaining_a_deep_copy():
    import copy

    from scipy.stats import spearmanr

    model, x = slow.pixel_model(), torch.randn(N, 2, 6, 5)
    made = attribute(model, x, target=1, method="input_x_gradient")
    curve = sanity.randomization(model, made, steps=2)
    wanted = [np.ones(N)]
    for count in (1, 2):
        twin = copy.deepcopy(model)
        torch.manual_seed(0)
        for layer in sanity.layers_from_the_output(twin)[:count]:
            layer.reset_parameters()
        other = attribute(twin, x, target=1, method="input_x_gradient")
        pairs = zip(made.heat.flatten(1), other.heat.flatten(1), strict=True)
        wanted.append(np.array([spearmanr(a, b).statistic for a, b in pairs]))
    assert isinstance(curve, Curve)
    near(curve.x, [0, 0.5, 1])
    near(curve.y, np.stack(wanted, 1))


def test_complexity_rise_equals_the_rise_of_the_histogram_entropy():
    from scipy.stats import entropy

    model, x = slow.pixel_model(), torch.randn(N, 2, 6, 5)
    made = attribute(model, x, target=1, method="input_x_gradient")
    new = sanity.untrained_map(model, made, sanity.layers_from_the_output(model), sanity.again(made), 0).heat
    both = [
        [entropy(np.histogram(row, bins=100)[0]) for row in heat.double().numpy()] for heat in (made.heat.flatten(1), new)
    ]
    near(METRICS["complexity_rise"](model, made), (np.array(both[1]) - both[0]) / both[0])


def test_maps_that_are_only_compared_are_not_signed_and_the_records_of_users_are(monkeypatch):
    hashed = []
    monkeypatch.setattr("inspector.attribution.origin.provenance", lambda *_, **__: hashed.append(1) or {"checksum": "0"})
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
    answer = attribute(model, torch.randn(3, 4), target=1, method="saliency")
    for name in ("randomization", "complexity_rise", "max_sensitivity"):
        METRICS[name](model, answer)
    assert hashed == [1]
    sanity.randomization(model, answer)
    assert attribute(torch.nn.Linear(4, 3), torch.randn(3, 4), target=1).model["checksum"] == "0"
