"""Where Quantus defines a metric as we do, it says the same. An oracle: skipped where it is not installed."""

import numpy as np
import pytest
import slow_metrics as slow
import torch

from inspector import Samples, attribute
from inspector.metrics import METRICS, robustness

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


@pytest.fixture(scope="module")
def quantus():
    return pytest.importorskip("quantus")


@pytest.fixture(scope="module")
def given():
    torch.manual_seed(3)
    model, x, y = slow.pixel_model().eval(), torch.randn(5, 2, 6, 5), torch.tensor([0, 1, 2, 1, 0])
    evidence = torch.rand(5, 6, 5) > 0.6
    return model, attribute(model, Samples(x, y, evidence=evidence), method="input_x_gradient")


def ask(metric, model, made, **more):
    heat, x = made.heat[:, None].numpy(), made.samples.inputs.numpy()
    return np.array(metric(model=model, x_batch=x, y_batch=made.samples.target.numpy(), a_batch=heat, device="cpu", **more))


@pytest.mark.parametrize(("ours", "theirs"), [
    ("sparseness", "Sparseness"), ("complexity", "Complexity"), ("relevance_mass", "RelevanceMassAccuracy"),
    ("relevance_rank", "RelevanceRankAccuracy"), ("pointing_game", "PointingGame"), ("auroc", "AUC"),
])  # fmt: skip
def test_shape_and_evidence_metrics_equal_quantus(quantus, given, ours, theirs):
    model, made = given
    masks = {} if METRICS[ours].kind == "shape" else {"s_batch": made.samples.evidence[:, None].numpy()}
    metric = getattr(quantus, theirs)(normalise=False, disable_warnings=True, **({"abs": True} if masks else {}))
    np.testing.assert_allclose(METRICS[ours](model, made).numpy(), ask(metric, model, made, **masks), atol=1e-5)


def test_deletion_a_pixel_at_a_time_equals_pixel_flipping(quantus, given):
    model, made = given
    metric = quantus.PixelFlipping(features_in_step=1, perturb_baseline=0.0, normalise=False, disable_warnings=True)
    gray = Gray(model).eval()
    single = attribute(gray, Samples(made.samples.inputs[:, :1], made.samples.target), method="input_x_gradient")
    curves = np.array(ask(metric, gray, single, softmax=False))
    np.testing.assert_allclose(METRICS["deletion"](gray, single, steps=30, baseline=0.0).y[:, 1:], curves, atol=1e-5)


class Gray(torch.nn.Module):
    """One channel, because Quantus ranks the channels of a pixel apart."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        return self.model(x.expand(-1, 2, -1, -1))


@pytest.mark.parametrize(
    ("ours", "theirs"), [("max_sensitivity", "MaxSensitivity"), ("local_lipschitz", "LocalLipschitzEstimate")]
)
def test_robustness_on_the_same_draws_equals_quantus(quantus, given, ours, theirs):
    model, made = given
    drawn = [near.numpy().reshape(5, -1) for near in robustness.nearby(made, 0.1, 4, 0)]
    turn = iter(drawn)
    options = {"nr_samples": 4, "normalise": False, "abs": False, "disable_warnings": True}
    options |= {"perturb_func": lambda arr, indices, **_: next(turn), "return_nan_when_prediction_changes": False}
    metric = getattr(quantus, theirs)(**options)
    whole = made.values.numpy()
    x, y = made.samples.inputs.numpy(), made.samples.target.numpy()
    wanted = metric(model=model, x_batch=x, y_batch=y, a_batch=whole, explain_func=explained, device="cpu")
    np.testing.assert_allclose(METRICS[ours](model, made, radius=0.1, draws=4).numpy(), wanted, rtol=1e-4)


def explained(model, inputs, targets, **_):
    made = attribute(model, torch.as_tensor(inputs), target=torch.as_tensor(targets), method="input_x_gradient")
    return made.values.numpy()
