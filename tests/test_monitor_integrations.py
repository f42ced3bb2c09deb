"""Lightning's Trainer and Hugging Face's need no callback: ``with Monitor(model): fit()`` measures what is applied."""

import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from inspector import Monitor

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]  # other people's warnings are no errors of ours


def data(count=24):
    generator = torch.Generator().manual_seed(3)
    return torch.randn(count, 6, generator=generator), torch.randint(3, (count,), generator=generator)


def body():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 3))


class Applied:
    """The gradients as an optimizer's arithmetic really got them: read inside its ``step``, after its closure."""

    def __init__(self, parameter):
        self.parameter, self.norms = parameter, []

    def sgd(self, parameters, **options):
        record = self

        class Sgd(torch.optim.SGD):
            def _init_group(self, group, *rest):
                if any(p is record.parameter() for p in group["params"]):
                    record.norms.append(record.parameter().grad.norm().item())
                return super()._init_group(group, *rest)

        return Sgd(parameters, **options)


def measured(history, name):
    n, rms = (history.stats.line("param_grad", name, statistic)[1] for statistic in ("n", "rms"))
    return history.stats.line("param_grad", name, "n")[0].tolist(), (rms * n**0.5).tolist()


def lightning_module(lightning, several=False):
    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.body, self.extra = body(), nn.Linear(6, 3)
            self.applied = Applied(lambda: self.body[0].weight)
            self.automatic_optimization = not several

        def training_step(self, batch, index):
            x, y = batch
            if not several:
                return F.cross_entropy(self.body(x) * 20, y)
            for optimizer, part in zip(self.optimizers(), (self.body, self.extra), strict=True):
                optimizer.zero_grad()
                self.manual_backward(F.cross_entropy(part(x), y))
                optimizer.step()
            return None

        def validation_step(self, batch, index):
            self.body(batch[0] * 1e6)

        def configure_optimizers(self):
            first = self.applied.sgd(self.body.parameters(), lr=0.05)
            return [first, torch.optim.SGD(self.extra.parameters(), lr=0.05)] if several else first

    return Module()


def fit(lightning, module, folder, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
        trainer = lightning.Trainer(accelerator="cpu", devices=1, default_root_dir=folder, **quiet, **options)
        loader = DataLoader(TensorDataset(*data()), batch_size=4)
        trainer.fit(module, loader, loader if options.get("val_check_interval") else None)


@pytest.fixture
def lightning():
    return pytest.importorskip("lightning", reason="pip install inspector[integrations] for the real Lightning")


@pytest.mark.parametrize(
    ("options", "steps"),
    [
        ({"max_epochs": 2}, 12),
        ({"max_epochs": 1, "gradient_clip_val": 0.05}, 6),
        ({"max_epochs": 1, "accumulate_grad_batches": 3, "gradient_clip_val": 0.05}, 2),
        ({"max_epochs": 1, "val_check_interval": 2}, 6),
        ({"max_epochs": 1, "precision": "bf16-mixed"}, 6),
    ],
)
def test_a_lightning_trainer_is_watched_as_it_is(lightning, tmp_path, options, steps):
    module = lightning_module(lightning)
    with Monitor(module, every=1, to=tmp_path / "run") as monitor:
        fit(lightning, module, tmp_path, **options)
    at, norms = measured(monitor.history, "body.0.weight")
    assert at == list(range(1, steps + 1))
    assert norms == pytest.approx(module.applied.norms, rel=1e-4)
    batches = options.get("accumulate_grad_batches", 1)
    assert monitor.history.stats.line("output", "body.0", "n")[1].tolist() == [4 * 16 * batches] * steps
    assert monitor.history.stats.line("output", "body.0", "absmax")[1].max() < 100  # the validation batches are not there
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in module.modules())


def test_a_lightning_module_with_two_optimizers_counts_the_steps_of_the_first(lightning, tmp_path):
    module = lightning_module(lightning, several=True)
    with Monitor(module, every=1) as monitor:
        fit(lightning, module, tmp_path, max_epochs=1)
    assert monitor.step == 6
    for name in ("body.0.weight", "extra.weight"):
        assert measured(monitor.history, name)[0] == [1, 2, 3, 4, 5, 6]
    assert measured(monitor.history, "body.0.weight")[1] == pytest.approx(module.applied.norms, rel=1e-4)


@pytest.mark.parametrize(("clip", "accumulate"), [(0.05, 1), (0.05, 3), (1e9, 2)])
def test_a_hugging_face_trainer_is_watched_as_it_is(tmp_path, clip, accumulate):
    reason = "pip install inspector[integrations] for the real Hugging Face Trainer"
    transformers = pytest.importorskip("transformers", reason=reason)
    pytest.importorskip("accelerate", reason=reason)

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = body()

        def forward(self, x, labels):
            logits = self.body(x if self.training else x * 1e6)
            return {"loss": F.cross_entropy(logits * 20, labels), "logits": logits}

    model = Model()
    applied = Applied(lambda: model.body[0].weight)
    rows = [{"x": x, "labels": y} for x, y in zip(*data(), strict=True)]
    arguments = transformers.TrainingArguments(
        output_dir=str(tmp_path / "out"),
        per_device_train_batch_size=4,
        gradient_accumulation_steps=accumulate,
        max_grad_norm=clip,
        num_train_epochs=2,
        eval_strategy="epoch",
        save_strategy="no",
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
    )
    optimizer = applied.sgd(model.parameters(), lr=0.05)
    trainer = transformers.Trainer(model, arguments, train_dataset=rows, eval_dataset=rows, optimizers=(optimizer, None))
    with Monitor(model, every=1, to=tmp_path / "run") as monitor:
        trainer.train()
    steps = 2 * 6 // accumulate
    at, norms = measured(monitor.history, "body.0.weight")
    assert at == list(range(1, steps + 1))
    assert trainer.state.global_step == monitor.step == steps
    assert norms == pytest.approx(applied.norms, rel=1e-4)
    assert monitor.history.stats.line("output", "body.0", "n")[1].tolist() == [4 * 16 * accumulate] * steps
    assert monitor.history.stats.line("output", "body.0", "absmax")[1].max() < 100
    if clip < 1:
        assert np.all(monitor.history.watch["grad_norm"][1] <= clip * 1.001)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_a_small_transformer_of_the_library_is_watched(tmp_path):
    transformers = pytest.importorskip("transformers", reason="pip install inspector[integrations]")
    torch.manual_seed(0)
    config = transformers.GPT2Config(n_layer=2, n_head=2, n_embd=16, vocab_size=50, n_positions=16)
    model = transformers.GPT2LMHeadModel(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    with Monitor(model, every=1, what=("output", "grad", "param_grad"), to=tmp_path / "run") as monitor:
        for _ in range(3):
            tokens = torch.randint(50, (2, 12))
            optimizer.zero_grad()
            model(input_ids=tokens, labels=tokens).loss.backward()
            optimizer.step()
    assert monitor.session.guard.off is None
    stats = monitor.history.stats
    assert "[logits]" in stats.where(kind="output").unique("name")
    assert "transformer.h.1.mlp.c_fc" in stats.where(kind="grad").unique("name")
    assert measured(monitor.history, "transformer.wte.weight")[0] == [1, 2, 3]
