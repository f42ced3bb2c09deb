"""The pictures of the README, made anew: ``python docs/pictures/make.py``."""

import shutil
import tempfile
from pathlib import Path

import torch
from torch.nn.functional import cross_entropy

from inspector import History, Monitor, models, show
from inspector.demo import demo

HERE = Path(__file__).parent


def explanations() -> None:
    """What the demo writes about the CNN."""
    with tempfile.TemporaryDirectory() as folder:
        made = demo(["cnn"], out=Path(folder) / "demo", tell=lambda share, label: None)
        shutil.copy(made.folder / "cnn-explanations.png", HERE / "compare.png")


def sick_training() -> History:
    """A learning rate that is a hundred times too high, met at step 80."""
    task = models.tasks.digits()
    torch.manual_seed(0)
    model = models.CNN()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    with Monitor(model, every=2) as monitor:
        for step in range(120):
            optimizer.param_groups[0]["lr"] = 1.0 if step == 80 else 0.01
            rows = torch.randint(len(task.train), (64,))
            loss = cross_entropy(model(task.train.inputs[rows]), task.train.target[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            monitor.log(loss=loss)
    return monitor.history


if __name__ == "__main__":
    explanations()
    show(sick_training()).savefig(HERE / "training.png", dpi=110)
