"""attribute and attribute_layers against Captum and pytorch-grad-cam: times, passes and how far the values differ.

    pip install "inspector[demo,bench]" && python benchmarks/attribution.py [--repeats 3] [--only PART ...]

The parts: layers, cams, perturb, single, targets.

Paired: ours and theirs run in turn on the same model and batch, after one run of each to warm up; the ratio is that of the
medians. pytorch-grad-cam is left out where it is not installed.
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from inspector import attribute, attribute_layers, attribute_targets
from inspector.records.tables import table

ONE_PASS = {
    "activation": "LayerActivation",
    "gradient_x_activation": "LayerGradientXActivation",
    "grad_cam": "LayerGradCam",
    "conductance": "LayerConductance",
    "internal_influence": "InternalInfluence",
}
CAMS = {
    "grad_cam": "GradCAM",
    "grad_cam_plus_plus": "GradCAMPlusPlus",
    "hires_cam": "HiResCAM",
    "layer_cam": "LayerCAM",
    "x_grad_cam": "XGradCAM",
    "eigen_cam": "EigenCAM",
    "eigen_grad_cam": "EigenGradCAM",
}
SINGLE = {
    "saliency": "Saliency",
    "input_x_gradient": "InputXGradient",
    "integrated_gradients": "IntegratedGradients",
    "gradient_shap": "GradientShap",
    "deep_lift": "DeepLift",
    "guided_backprop": "GuidedBackprop",
}
Run = Callable[[], Any]
Row = list[str]


@contextmanager
def counted(model: nn.Module) -> Iterator[list[int]]:
    """How often the model ran inside the block."""
    passes = [0]

    def count(*_: Any) -> None:
        passes[0] += 1

    handle = model.register_forward_hook(count)
    try:
        yield passes
    finally:
        handle.remove()


def timed(run: Run) -> tuple[float, Any]:
    """Seconds and answer."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        start = time.perf_counter()
        answer = run()
        return time.perf_counter() - start, answer


def pair(name: str, model: nn.Module, ours: Run, theirs: Run, apart: Callable[[Any, Any], float | None], n: int) -> Row:
    """One row: medians of n runs in turn, passes, and the largest difference."""
    with counted(model) as mine:
        _, found = timed(ours)
    with counted(model) as other:
        _, wanted = timed(theirs)
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(n):
        times[0].append(timed(ours)[0])
        times[1].append(timed(theirs)[0])
    own, their = statistics.median(times[0]), statistics.median(times[1])
    gap = apart(found, wanted)
    difference = "-" if gap is None else f"{gap:.1e}"
    row = [name, f"{own:.4f}", f"{their:.4f}", f"{their / own:.2f}", str(mine[0]), str(other[0]), difference]
    print("  ".join(row), flush=True)
    return row


def largest(found: Any, wanted: Any) -> float:
    """The largest difference over all layers, as a share of the largest value."""
    gaps = [(found[name].values - w).abs().max().item() / max(1e-12, w.abs().max().item()) for name, w in wanted.items()]
    return max(gaps)


def layers(n: int) -> list[Row]:
    """All layers of resnet18 and of a transformer of 12 layers, against Captum one layer at a time."""
    from torchvision.models import resnet18

    rows = []
    transformer = nn.TransformerEncoderLayer(64, 4, 128, batch_first=True, dropout=0.0)
    deep = nn.Sequential(
        nn.TransformerEncoder(transformer, 12, enable_nested_tensor=False), nn.Flatten(), nn.Linear(1024, 9)
    )
    cases = {
        "resnet18": (resnet18().eval(), torch.randn(2, 3, 64, 64)),
        "transformer": (deep.eval(), torch.randn(2, 16, 64)),
    }
    for title, (model, x) in cases.items():
        names = once_each(model, x)
        for method in ONE_PASS:
            rows.append(one_layer_method(f"{title}, {len(names)} layers: {method}", model, x, names, method, n))
    return rows


def one_layer_method(title: str, model: nn.Module, x: Tensor, names: list[str], method: str, n: int) -> Row:
    import captum.attr

    options: dict[str, Any] = {"n_steps": 20} if method in ("conductance", "internal_influence") else {}
    target = {} if method == "activation" else {"target": 5}

    def theirs() -> dict[str, Tensor]:
        explainer = getattr(captum.attr, ONE_PASS[method])
        return {name: explainer(model, model.get_submodule(name)).attribute(x, **target, **options) for name in names}

    def ours() -> Any:
        return attribute_layers(model, x, target=5, method=method, where=names, **options)

    # Captum's Grad-CAM takes tokens for channels; ours keeps them as positions
    apart = (lambda *_: None) if method == "grad_cam" and x.dim() == 3 else largest
    return pair(title, model, ours, theirs, apart, n if not options else 1)


def once_each(model: nn.Module, x: Tensor) -> list[str]:
    """The leaf modules that run once with one tensor, which Captum can explain."""
    ran: dict[str, list[Any]] = {}
    handles = []
    for name, module in model.named_modules():
        if not any(module.children()):
            handles.append(module.register_forward_hook(lambda _, __, out, name=name: ran.setdefault(name, []).append(out)))
    model(x)
    for handle in handles:
        handle.remove()
    return [name for name, outputs in ran.items() if len(outputs) == 1 and isinstance(outputs[0], Tensor)]


def cams(n: int) -> list[Row]:
    """Seven CAMs at four layers of resnet18 from one pass, against pytorch-grad-cam one by one."""
    try:
        import pytorch_grad_cam
        from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
    except ImportError:
        print("pytorch-grad-cam is not installed: pip install grad-cam")
        return []
    from torchvision.models import resnet18

    model, x, names = resnet18().eval(), torch.randn(2, 3, 96, 96), ["layer1", "layer2", "layer3", "layer4"]

    def theirs() -> dict[str, Any]:
        found = {}
        for method, kind in CAMS.items():
            for name in names:
                with getattr(pytorch_grad_cam, kind)(model=model, target_layers=[model.get_submodule(name)]) as cam:
                    found[f"{method}@{name}"] = cam(input_tensor=x, targets=[ClassifierOutputTarget(5)] * 2)
        return found

    def ours() -> Any:
        return attribute_layers(model, x, target=5, method=tuple(CAMS), where=names)

    return [pair("resnet18, 4 layers: 7 CAMs", model, ours, theirs, as_pictures, n)]


def as_pictures(found: Any, wanted: Any) -> float:
    """The largest difference once ours is what pytorch-grad-cam makes of it: positive, scaled to 0..1, resized. The sign of
    a principal component is arbitrary, so the nearer of the two counts."""
    from pytorch_grad_cam.utils.image import scale_cam_image

    gaps = []
    for key, picture in wanted.items():
        heat = found[key].heat.numpy()
        signs = (1, -1) if key.startswith("eigen") else (1,)
        maps = [scale_cam_image((sign * heat).clip(min=0), picture.shape[1:]) for sign in signs]
        each = [[abs(scale_cam_image(m[i : i + 1])[0] - picture[i]).max() for m in maps] for i in range(len(picture))]
        gaps.append(max(min(one) for one in each))
    return float(max(gaps))


def perturb(n: int) -> list[Row]:
    """Perturbation methods, against Captum's defaults and against its best number of perturbations per pass."""
    from torchvision.models import resnet18

    rows = []
    for title, x in {
        "resnet18, 2 images": torch.randn(2, 3, 64, 64),
        "resnet18, 1 image": torch.randn(1, 3, 64, 64),
    }.items():
        rows += perturbed(title, resnet18().eval(), x, n)
    small = nn.Sequential(
        nn.Conv2d(3, 8, 5, 4), nn.ReLU(), nn.Conv2d(8, 16, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(784, 9)
    )
    return rows + perturbed("small CNN, 2 images", small.eval(), torch.randn(2, 3, 64, 64), 3 * n)


def perturbed(title: str, model: nn.Module, x: Tensor, n: int) -> list[Row]:
    import captum.attr

    rows = []
    mask = (torch.arange(64)[:, None] // 8 * 8 + torch.arange(64) // 8).repeat(3, 1, 1)
    window = {"sliding_window_shapes": (3, 16, 16), "strides": (3, 8, 8)}
    cases: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
        "occlusion": ("Occlusion", window, window),
        "feature_ablation": ("FeatureAblation", {"feature_mask": mask}, {"feature_mask": mask[None]}),
        "shapley_value_sampling": (
            "ShapleyValueSampling",
            {"feature_mask": mask, "n_samples": 4},
            {"feature_mask": mask[None], "n_samples": 4},
        ),
        "kernel_shap": (
            "KernelShap",
            {"feature_mask": mask, "n_samples": 100},
            {"feature_mask": mask[None], "n_samples": 100},
        ),
    }
    for method, (name, own, their) in cases.items():
        explainer = getattr(captum.attr, name)(model)
        drawn = method in ("shapley_value_sampling", "kernel_shap")

        def ours(method: str = method, own: dict[str, Any] = own) -> Any:
            return {"": attribute(model, x, target=5, method=method, **own)}

        for many in (1, 8, 32):

            def theirs(explainer: Any = explainer, their: dict[str, Any] = their, many: int = many) -> Any:
                with torch.no_grad():
                    return {"": explainer.attribute(x, target=5, perturbations_per_eval=many, **their)}

            rows.append(
                pair(
                    f"{title}: {method}, Captum with {many} a pass",
                    model,
                    ours,
                    theirs,
                    (lambda *_: None) if drawn else largest,
                    n,
                )
            )
    return rows


def single(n: int) -> list[Row]:
    """Single input methods, against calling Captum directly: vgg11, resnet18, and a model so small that only what is done
    around the model counts."""
    from torchvision.models import resnet18, vgg11

    tiny = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 8))
    vgg, resnet = vgg11().eval(), resnet18().eval()
    for module in vgg.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False
    cases: dict[str, tuple[nn.Module, Tensor, tuple[str, ...], int]] = {
        "vgg11, 4 images": (vgg, torch.randn(4, 3, 64, 64), tuple(SINGLE), n),
        # Captum refuses the ReLUs that run twice
        "resnet18, 4 images": (resnet, torch.randn(4, 3, 112, 112), tuple(SINGLE)[:4], n),
        "MLP of 3 layers": (tiny, torch.randn(4, 8), tuple(SINGLE), 20 * n),
    }
    rows = []
    for title, (model, x, methods, times) in cases.items():
        rows += [one_method(f"{title}: {method}", model, x, method, times) for method in methods]
        title = f"{title}: integrated_gradients, Captum without its delta"
        rows.append(one_method(title, model, x, "integrated_gradients", times, delta=False))
    return rows


def one_method(title: str, model: nn.Module, x: Tensor, method: str, n: int, *, delta: bool = True) -> Row:
    import captum.attr

    options: dict[str, Any] = {"n_steps": 20} if method == "integrated_gradients" else {}
    options |= {"baselines": torch.zeros_like(x[:1])} if method == "gradient_shap" else {}
    # Captum computes how far it is from complete only when asked, ours always
    asked = {"return_convergence_delta": True} if delta and method == "integrated_gradients" else {}

    def ours() -> Any:
        return {"": attribute(model, x, target=5, method=method, **options)}

    def theirs() -> Any:
        found = getattr(captum.attr, SINGLE[method])(model).attribute(x, target=5, **options, **asked)
        return {"": found[0] if asked else found}

    return pair(title, model, ours, theirs, (lambda *_: None) if method == "gradient_shap" else largest, n)


def targets(n: int) -> list[Row]:
    """Ten classes of resnet18, against Captum class by class."""
    import captum.attr
    from torchvision.models import resnet18

    model, x, classes, rows = resnet18().eval(), torch.randn(2, 3, 64, 64), list(range(10)), []
    window = {"sliding_window_shapes": (3, 16, 16), "strides": (3, 8, 8)}
    cases: dict[str, tuple[str, dict[str, Any]]] = {"saliency": ("Saliency", {}), "occlusion": ("Occlusion", window)}
    for method, (name, own) in cases.items():

        def ours(method: str = method, own: Any = own) -> Any:
            return attribute_targets(model, x, classes, method=method, **own)

        def theirs(name: str = name, own: Any = own) -> Any:
            explainer = getattr(captum.attr, name)(model)
            best = {"perturbations_per_eval": 16} if own else {}
            return {one: explainer.attribute(x, target=one, **own, **best).detach() for one in classes}

        rows.append(pair(f"resnet18, 10 targets: {method}", model, ours, theirs, largest, n))
    return rows


PARTS = {"layers": layers, "cams": cams, "perturb": perturb, "single": single, "targets": targets}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", nargs="*", default=list(PARTS))
    chosen = parser.parse_args()
    torch.manual_seed(0)
    rows = [row for part in chosen.only for row in PARTS[part](chosen.repeats)]
    print(table(["case", "ours s", "theirs s", "ratio", "our passes", "their passes", "largest difference"], rows))


if __name__ == "__main__":
    main()
