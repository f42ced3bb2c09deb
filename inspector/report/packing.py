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

from inspector.records.stats import Column as Array
from inspector.report.markup import Html, tag

LOST = -32768  # NaN and infinity
ABSENT = 32767  # nothing was measured there
TOP = 32766
LOG_STEPS, LOG_LOW = 109, -150  # steps per power of two, and the least power


class Packed:
    """Collects arrays of one type; ``add`` and its kin answer with where each lies and how it is to be read."""

    def __init__(self, kind: str = "i2") -> None:
        self.kind = kind
        self.parts: list[bytes] = []
        self.length = 0

    def add(self, values: Tensor) -> dict[str, Any]:
        """Evenly spaced steps up to the largest finite value, 32,766 of them to each side."""
        array = values.detach().cpu().double().numpy()
        finite = np.isfinite(array)
        top = float(np.abs(array[finite]).max()) if finite.any() else 0.0
        step = top / TOP or 1.0
        numbers = np.where(finite, np.where(finite, array, 0.0) / step, LOST)
        return self._put(numbers.round()) | {"step": step}

    def add_wide(self, values: Array, present: Array) -> dict[str, Any]:
        """Steps of 0.6 percent of the value itself, for numbers that span orders of magnitude."""
        with np.errstate(divide="ignore", invalid="ignore"):
            powers = (np.log2(np.abs(values)) - LOG_LOW) * LOG_STEPS + 1
        finite = np.isfinite(values)
        numbers = np.where(values == 0, 0, np.sign(values) * np.clip(np.where(np.isfinite(powers), powers, 1), 1, TOP))
        return self._put(np.where(present, np.where(finite, numbers.round(), LOST), ABSENT)) | {"wide": True}

    def add_share(self, values: Tensor) -> dict[str, Any]:
        """Numbers from 0 to 1 in one byte each, finest near 0: value = (number / 255) squared."""
        roots = values.detach().cpu().float().clamp(0, 1).nan_to_num(0).sqrt()
        return self._put((255 * roots).round().numpy())

    def _put(self, numbers: Array) -> dict[str, Any]:
        place = {"at": self.length, "shape": list(numbers.shape)}
        self.parts.append(numbers.astype(f"<{self.kind}").tobytes())
        self.length += numbers.size
        return place

    @property
    def text(self) -> str:
        return base64.b64encode(zlib.compress(b"".join(self.parts), 6)).decode()


def viewer(kind: str, data: dict[str, Any], packed: Packed, title: str) -> Html:
    """The place where the script of this kind builds its view; without a script it stays hidden."""
    text = json.dumps(data | {"bytes": packed.text, "type": packed.kind}, allow_nan=False, ensure_ascii=True)
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    held = tag("script", Html(text), type="application/json")
    return tag("div", held, class_="viewer", data_kind=kind, role="group", aria_label=title, hidden=True)
