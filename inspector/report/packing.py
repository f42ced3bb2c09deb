"""Numbers inside the page: 16-bit steps, deflated, in base64, so that a thousand maps are smaller than one picture.

The page's script unpacks them; everything that is text travels as escaped JSON and is only ever set as text.
"""

from __future__ import annotations

import base64
import json
import zlib
from typing import Any

import numpy as np
from torch import Tensor

from inspector.report.markup import Html, tag

LOST = -32768  # NaN and infinity
TOP = 32767


class Packed:
    """Collects arrays; ``add`` answers with where each lies and how large a step is: value = number * step."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self.length = 0

    def add(self, values: Tensor) -> dict[str, Any]:
        """At most 65,535 different values are kept, evenly spaced up to the largest finite one."""
        array = values.detach().cpu().double().numpy()
        finite = np.isfinite(array)
        top = float(np.abs(array[finite]).max()) if finite.any() else 0.0
        step = top / TOP or 1.0
        numbers = np.where(finite, np.where(finite, array, 0.0) / step, LOST).round().astype("<i2")
        place = {"at": self.length, "step": step, "shape": list(array.shape)}
        self.parts.append(numbers.tobytes())
        self.length += numbers.size
        return place

    @property
    def text(self) -> str:
        return base64.b64encode(zlib.compress(b"".join(self.parts), 9)).decode()


def viewer(kind: str, data: dict[str, Any], packed: Packed, title: str) -> Html:
    """The place where the script of this kind builds its view; without a script it stays hidden."""
    text = json.dumps(data | {"bytes": packed.text}, allow_nan=False, ensure_ascii=True)
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    held = tag("script", Html(text), type="application/json")
    return tag("div", held, class_="viewer", data_kind=kind, role="group", aria_label=title, hidden=True)
