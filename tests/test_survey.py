"""The survey: every module of PyTorch's own test database, the models of torchvision and Captum's test models.

What is captured equals, bit for bit, what raw hooks see on an equal model with the same seed; and a model that was
looked at is left as a run nobody looked at leaves it.
"""

import copy
import warnings

import pytest
import survey
import torch
from survey import all_same, forward_and_backward, judge, oracle
from torch import nn

from inspector import capture
from inspector.tensors import walk

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # the surveyed code warns of itself


MOST = 24  # inputs of one module, spread over those of the database


def module_infos():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            from torch.testing._internal.common_modules import module_db
        except ImportError:
            return []
    return module_db


class Harsh(nn.Module):
    """Writes over what the module answered, as residual connections and in-place activations do."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, *args, **kwargs):
        output = self.inner(*args, **kwargs)
        for t in output if isinstance(output, tuple) else [output]:
            if isinstance(t, torch.Tensor) and (t.is_floating_point() or t.is_complex()):
                t.mul_(2).add_(1)
        return output


def cases(info, training):
    """Each constructible module of the database with each of its inputs; the first dtype it supports."""
    dtype = next(d for d in (torch.float32, *info.dtypes) if d in info.dtypes)
    torch.manual_seed(0)
    every = list(info.module_inputs_func(info, device="cpu", dtype=dtype, requires_grad=True, training=training))
    for case in every[:: 1 + len(every) // MOST]:
        given = case.constructor_input
        module = info.module_cls(*given.args, **given.kwargs)
        if any(p.is_floating_point() for p in module.parameters()):
            module = module.to(dtype)
        yield module.train(training), forward_and_backward(case.forward_input.args, case.forward_input.kwargs)


def runs(module, run):
    try:
        run(copy.deepcopy(module))
    except Exception:
        return False
    return True


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("harsh", [False, True], ids=["alone", "written over"])
@pytest.mark.parametrize("info", module_infos(), ids=lambda info: info.formatted_name)
def test_every_module_of_pytorch(info, training, harsh):
    judged = 0
    for module, run in cases(info, training):
        subject = Harsh(module) if harsh else module
        if runs(subject, run):
            judged += 1
            assert judge(subject, run) == []
    if not judged:
        pytest.skip("it runs with none of its inputs")


def image(size, batch=2):
    return forward_and_backward((torch.randn(batch, 3, size, size),))


def clip(frames, size):
    return forward_and_backward((torch.randn(1, 3, frames, size, size),))


def boxes(extra):
    """Detection in training: losses of a batch of two images with one object each."""
    target = {"boxes": torch.tensor([[4.0, 4.0, 40.0, 50.0]]), "labels": torch.tensor([1])} | extra
    return forward_and_backward(([torch.rand(3, 64, 64), torch.rand(3, 72, 64)], [target, target]))


MASKS = {"masks": torch.ones(1, 72, 64, dtype=torch.uint8)}
KEYPOINTS = {"keypoints": torch.tensor([[[10.0, 10.0, 1.0]] * 17])}
FEW = {"rpn_pre_nms_top_n_train": 64, "rpn_post_nms_top_n_train": 32, "box_batch_size_per_image": 16}
SMALL = {"min_size": 64, "max_size": 96, "weights_backbone": None}
FAMILIES = (  # the start of the name, options, inputs; the first that fits counts
    ("vit_", {"image_size": 64}, lambda: image(64)),
    ("maxvit", {}, lambda: image(224, 1)),
    ("inception_v3", {"init_weights": False}, lambda: image(96)),
    ("quantized_inception_v3", {"init_weights": False}, lambda: image(96)),
    ("googlenet", {"init_weights": False}, lambda: image(64)),
    ("quantized_googlenet", {"init_weights": False}, lambda: image(64)),
    ("raft", {}, lambda: forward_and_backward((torch.rand(1, 3, 128, 128), torch.rand(1, 3, 128, 128), 2))),
    ("mvit", {}, lambda: clip(4, 64)),
    ("swin3d", {}, lambda: clip(4, 32)),
    ("s3d", {}, lambda: clip(16, 224)),
    (("r3d", "mc3", "r2plus1d"), {}, lambda: clip(4, 32)),
    ("maskrcnn", SMALL | FEW, lambda: boxes(MASKS)),
    ("keypointrcnn", SMALL | FEW, lambda: boxes(KEYPOINTS)),
    ("fasterrcnn", SMALL | FEW, lambda: boxes({})),
    (("retinanet", "fcos"), SMALL, lambda: boxes({})),
    (("ssd300", "ssdlite320"), {"weights_backbone": None}, lambda: boxes({})),
    (("deeplabv3", "fcn", "lraspp"), {"weights_backbone": None}, lambda: image(64)),
    ("", {}, lambda: image(64)),
)
# Each of the others has a smaller sibling of the same code here; these hold hundreds of megabytes of the same layers.
LARGE = ("convnext_large", "efficientnet_b7", "efficientnet_v2_l", "regnet_y_128gf", "regnet_x_32gf", "regnet_y_32gf")
LARGE += (
    "vit_h_14",
    "vit_l_16",
    "vit_l_32",
    "wide_resnet101_2",
    "vgg11",
    "vgg13",
    "vgg16",
    "vgg19",
    "vgg13_bn",
    "vgg16_bn",
    "vgg19_bn",
)
LARGE += ("resnext101_64x4d", "resnext101_32x8d", "quantized_resnext101_32x8d", "quantized_resnext101_64x4d")
LARGE += (
    "fcn_resnet101",
    "deeplabv3_resnet101",
    "regnet_y_16gf",
    "regnet_x_16gf",
    "swin_b",
    "swin_v2_b",
    "swin3d_b",
    "convnext_base",
    "vit_b_32",
)


def torchvision_models():
    import torchvision

    return [name for name in torchvision.models.list_models() if name not in LARGE]


@pytest.mark.parametrize("name", torchvision_models())
def test_every_model_of_torchvision(name, monkeypatch):
    import torchvision
    from torchvision.models.video import mvit

    make, small = mvit._mvit, {"spatial_size": (64, 64), "temporal_size": 4}
    monkeypatch.setattr(mvit, "_mvit", lambda **options: make(**options | small))
    torch.manual_seed(0)
    options, inputs = next((o, i) for start, o, i in FAMILIES if name.startswith(start))
    model = torchvision.models.get_model(name, weights=None, **options)
    training = hasattr(model, "roi_heads") or hasattr(model, "anchor_generator")
    assert judge(model.train(training), inputs()) == []


def test_a_quantized_model_gives_its_quantized_outputs():
    import torchvision

    if "fbgemm" not in torch.backends.quantized.supported_engines:
        pytest.skip("this machine has no engine for it")
    model = torchvision.models.quantization.shufflenet_v2_x0_5(weights=None)
    model.eval().qconfig = torch.ao.quantization.get_default_qconfig("fbgemm")
    torch.ao.quantization.prepare(model, inplace=True)
    model(torch.randn(2, 3, 64, 64))
    torch.ao.quantization.convert(model, inplace=True)
    x = torch.randn(2, 3, 64, 64)
    seen, _ = oracle(copy.deepcopy(model), lambda m: m(x))
    with capture(model) as store:
        model(x)
    assert store["conv1.0"].output.is_quantized
    for name, call in store.items():
        assert all_same(dict(walk(call.output)), seen.values[call.site.path, call.site.call]), name


A, B, C = torch.randn(4, 3), torch.randn(4, 3), torch.randn(4, 3)
WORDS, MORE_WORDS = torch.randint(0, 30, (4, 6)), torch.randint(0, 30, (4, 6))
CAPTUM = {
    "BasicLinearReLULinear": [((3,), (A,))],
    "MixedKwargsAndArgsModule": [((), (A, B))],
    "BasicModel": [((), (A,))],
    "BasicModel2": [((), (A, B))],
    "BasicModel3": [((), (A, B))],
    "BasicModel4_MultiArgs": [((), (A, B, 2.0, 1))],
    "BasicModel5_MultiArgs": [((), (A, B, [1, 2], 1))],
    "BasicModel6_MultiTensor": [((), (A, B))],
    "BasicLinearModel": [((), (torch.randn(4, 5), torch.randn(4, 2)))],
    "BasicLinearModel2": [((3, 2), (A,))],
    "BasicLinearModel_Multilayer": [((3, 5, 2), (A,))],
    "ReLUDeepLiftModel": [((), (A, B))],
    "LinearMaxPoolLinearModel": [((), (torch.randn(2, 4),))],
    "BasicModelWithReusedModules": [((), (A,))],
    "BasicModelWithReusedLinear": [((), (A,))],
    "BasicModelWithSparseInputs": [((), (A, torch.tensor([0.0, 1.0])))],
    "BasicModel_MaxPool_ReLU": [((flag,), (torch.randn(2, 1, 4),)) for flag in (False, True)],
    "TanhDeepLiftModel": [((), (A, B))],
    "ReLULinearModel": [((flag,), (A, B)) for flag in (False, True)],
    "SimpleLRPModel": [((flag,), (A,)) for flag in (False, True)],
    "Conv1dSeqModel": [((), (torch.randn(4, 4, 1000),))],
    "TextModule": [((30, 5), (WORDS,)), ((30, 5, True), (WORDS, MORE_WORDS))],
    "BasicEmbeddingModel": [((30, 100, 256, 1), (WORDS, WORDS)), ((30, 100, 256, 1, True), (WORDS, WORDS, MORE_WORDS))],
    "PassThroughLayerOutput": [((), (A,)), ((), ([A, 3],)), ((), (None,))],
    "BasicModel_GradientLayerAttribution": [
        ((flag, odd), (A, B)) for flag in (False, True) for odd in (None, [A, 3], {"a": A})
    ],
    "MultiRelu": [((flag,), (A * 1, B * 1)) for flag in (False, True)],
    "BasicModel_MultiLayer": [(options, (A, B, True)) for options in ((False, False), (False, True), (True, False))],
    "BasicModel_MultiLayer_with_Future": [((), (A, B))],
    "BasicModelBoolInput": [((), (A > 0, B))],
    "BasicModelBoolInput_with_Future": [((), (A > 0, B))],
    "BasicModel_MultiLayer_MultiInput": [((), (A, B, C, 3))],
    "BasicModel_MultiLayer_TupleInput": [((), ((A, B, C),))],
    "BasicModel_MultiLayer_MultiInput_with_Future": [((), (A, B, C, 3))],
    "BasicModel_MultiLayer_TrueMultiInput": [((), (A, B, C, A))],
    "BasicModel_ConvNet_One_Conv": [((flag,), (torch.randn(2, 1, 4, 4),)) for flag in (False, True)],
    "BasicModel_ConvNetWithPaddingDilation": [((flag,), (torch.randn(2, 1, 5, 5),)) for flag in (False, True)],
    "BasicModel_ConvNet": [((), (torch.randn(2, 1, 10, 10),))],
    "BasicModel_ConvNet_MaxPool1d": [((), (torch.randn(2, 1, 10),))],
    "BasicModel_ConvNet_MaxPool3d": [((), (torch.randn(2, 1, 10, 10, 10),))],
}


def captum_models():
    from captum.testing.helpers import basic_models

    return [name for name, c in vars(basic_models).items() if isinstance(c, type) and issubclass(c, nn.Module)]


@pytest.mark.parametrize("name", captum_models())
def test_every_test_model_of_captum(name):
    from captum.testing.helpers import basic_models

    for options, inputs in CAPTUM[name]:
        torch.manual_seed(0)
        assert judge(getattr(basic_models, name)(*options), forward_and_backward(inputs)) == []


BLIND = {
    "a part": lambda model, **options: capture(model, keep=lambda t: t[:1], **options),
    "not every module": lambda model, **options: capture(model, "inner", **options),
    "halved": lambda model, **options: capture(model, keep=lambda t: t / 2, **options),
}


@pytest.mark.parametrize("name", BLIND)
def test_the_judge_notices_a_capture_that_is_wrong(name, monkeypatch):
    model, run = Harsh(nn.Linear(3, 3)), forward_and_backward((torch.randn(2, 3),))
    assert judge(copy.deepcopy(model), run) == []
    monkeypatch.setattr(survey, "capture", BLIND[name])
    assert judge(model, run) != []


def test_the_judge_notices_a_changed_run():
    model, drop = nn.Linear(3, 3), [nn.Dropout(0.5)]

    def run(model):
        output = model(torch.randn(2, 3))
        (drop[0](output) if drop else output).sum().backward()
        drop.clear()
        return output

    assert "looking changed the random stream" in judge(model, run)
