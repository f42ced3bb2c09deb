"""A model that cannot run on what it was given: the error says what that was, what the model holds, and what to do."""

from functools import partial

import pytest
import torch
from torch import nn

from inspector import attribute, attribute_layers, attribute_targets, compare
from inspector.attribution import door

ALL = ("saliency", "integrated_gradients", "deep_lift", "lrp", "kernel_shap", "occlusion")


def dense():
    return nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))


def said(call, kind=RuntimeError):
    with pytest.raises(kind) as caught:
        call()
    assert isinstance(caught.value.__cause__, Exception)
    return str(caught.value)


@pytest.mark.parametrize("method", ALL)
def test_inputs_of_another_precision_than_the_model_are_told_with_the_cure(method):
    text = said(lambda: attribute(dense(), torch.randn(2, 3).double(), target=1, method=method))
    assert "the input (2, 3) float64 on cpu" in text
    assert "The model's parameters: float32 on cpu" in text
    assert "x.to(torch.float32), or the model as they are, model.to(torch.float64)" in text


@pytest.mark.parametrize(
    "call",
    [
        lambda model, x: attribute_layers(model, x, target=1, method="activation"),
        lambda model, x: attribute_targets(model, x, [0, 1], method="saliency"),
        lambda model, x: compare(model, x, target=1, methods=("saliency", "grad_cam")),
    ],
)
def test_every_verb_that_explains_says_so(call):
    assert "the input (2, 3) float64 on cpu" in said(lambda: call(dense(), torch.randn(2, 3).double()))


@pytest.mark.parametrize("method", ALL)
def test_a_sample_without_a_batch_axis_is_told_with_the_cure(method):
    image = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4, 2))
    for model, x in ((dense(), torch.randn(3)), (image, torch.randn(3)), (image, torch.randn(3, 3, 3))):
        text = said(partial(attribute, model, x, target=1, method=method), (RuntimeError, ValueError))
        assert f"the input {tuple(x.shape)} float32 on cpu" in text
        assert "one sample alone is x[None]" in text


def test_an_error_of_the_models_own_stays_of_its_kind_and_is_chained():
    embed = nn.Sequential(nn.Embedding(10, 4), nn.Flatten(), nn.Linear(8, 2))
    text = said(lambda: attribute(embed, torch.tensor([[1, 30]]), target=1), IndexError)
    assert "index out of range" in text
    assert "(1, 2) int64 from 1 to 30" in text
    text = said(lambda: attribute(dense(), {"x": torch.randn(2, 3)}, target=1), TypeError)
    assert "unexpected keyword" in text
    assert "input [x] (2, 3) float32" in text

    class Own(nn.Module):
        def forward(self, x):
            raise KeyError("no such thing")

    assert "no such thing" in said(lambda: attribute(Own(), torch.randn(2, 3)))


def test_a_model_of_one_batch_size_is_told_apart_from_wrong_inputs():
    class Fixed(nn.Module):
        def forward(self, x):
            return x.view(2, 3).sum(1)

    assert "runs on these 2 samples but not on 4" in said(lambda: attribute(Fixed(), torch.randn(2, 3)))


def test_an_error_that_is_not_the_models_passes_as_it_is():
    def fails(output):
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        attribute(dense(), torch.randn(2, 3), target=fails)
    with pytest.raises(IndexError, match=r"^target 7 is out of range"):
        attribute(dense(), torch.randn(2, 3), target=7)


def test_a_model_that_cannot_run_is_left_as_it_was():
    model = dense().train()
    state = torch.get_rng_state()
    said(lambda: attribute(model, torch.randn(2, 7), target=1))
    assert model.training
    assert not model[0]._forward_hooks
    torch.manual_seed(0)
    before = torch.get_rng_state()
    said(lambda: attribute(model, torch.ones(2, 7), target=1))
    assert torch.equal(torch.get_rng_state(), before)
    torch.set_rng_state(state)


def test_tensors_without_numbers_are_refused():
    with pytest.raises(ValueError, match=r"'weight' is on the meta device .*to_empty"):
        attribute(nn.Linear(3, 2, device="meta"), torch.randn(2, 3), target=1)
    with pytest.raises(ValueError, match=r"the input \(2, 3\) is on the meta device"):
        attribute(dense(), torch.randn(2, 3, device="meta"), target=1)


def test_inputs_on_another_device_than_the_model_are_told_with_the_cure(monkeypatch):
    monkeypatch.setattr(door, "_check_model", lambda model: None)  # the meta device stands for an accelerator
    text = said(lambda: attribute(dense().to("meta"), torch.randn(2, 3), target=1, method="saliency"))
    assert "the input (2, 3) float32 on cpu. The model's parameters: float32 on meta" in text
    assert "x.to('meta'), or the model as they are, model.to('cpu')" in text
