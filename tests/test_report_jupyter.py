"""A report as the last line of a cell in a real JupyterLab: its page is shown inline and its pickers work."""

import json
import re
import shutil
import subprocess
import sys
import time
from importlib.util import find_spec

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed (apt-get install chromium)"),
    pytest.mark.skipif(find_spec("jupyterlab") is None, reason="jupyterlab is not installed (pip install jupyterlab)"),
]

CELL = """\
import torch
from inspector import Attribution, Samples, report
inputs = torch.rand(3, 1, 8, 8)
report("page.html", "# Opening", Attribution(inputs - 0.5, Samples(inputs), method="made by hand", axes=(2, 3)))"""


@pytest.fixture
def lab(tmp_path):
    """The address of a running JupyterLab with one notebook."""
    cell = {"cell_type": "code", "id": "one", "metadata": {}, "outputs": [], "execution_count": None, "source": CELL}
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    notebook = {"cells": [cell], "metadata": kernel, "nbformat": 4, "nbformat_minor": 5}
    (tmp_path / "look.ipynb").write_text(json.dumps(notebook))
    options = ["--no-browser", "--allow-root", "--port=0", "--IdentityProvider.token=", f"--ServerApp.root_dir={tmp_path}"]
    options += ["--LabApp.news_url=None", "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"]
    command = [sys.executable, "-m", "jupyterlab", *options]
    log = tmp_path / "server.log"
    with log.open("w") as file, subprocess.Popen(command, stdout=file, stderr=file, cwd=tmp_path) as server:
        try:
            yield address(log)
        finally:
            server.terminate()


def address(log):
    """Where the server says that it listens."""
    for _ in range(600):
        found = re.search(r"http://(localhost|127\.0\.0\.1):\d+/", log.read_text())
        if found:
            return found[0]
        time.sleep(0.1)
    raise TimeoutError(log.read_text())


def test_the_page_is_inline_in_jupyterlab_and_its_pickers_work(lab, tmp_path):
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1400, "height": 1000})
        page.goto(f"{lab}lab/tree/look.ipynb")
        page.locator(".jp-CodeCell .cm-content").first.click(timeout=90_000)
        page.keyboard.press("Shift+Enter")
        frame = page.frame_locator(".jp-OutputArea iframe")
        frame.locator("html[data-ready]").wait_for(state="attached", timeout=120_000)
        assert frame.locator("h1").inner_text() == "Inspector report"
        viewer = frame.locator(".viewer")
        viewer.get_by_label("Sample", exact=True).select_option("2")
        assert "sample 2" in viewer.locator(".foot").inner_text()
        frame.locator("nav a").first.click()
        assert frame.locator("h2").last.inner_text() == "made by hand"
        page.screenshot(path=tmp_path / "jupyterlab.png")
        browser.close()
