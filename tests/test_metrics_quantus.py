"""Where Quantus defines a metric as we do, it says the same. An oracle: skipped where it is not installed."""

import numpy as np
import pytest
import slow_metrics as slow
import torch

from inspector import Samples, attribute
from inspector.metrics import METRICS

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
