"""Inside a recurrent layer: its gates and states, units by time, beneath the input that drove them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from torch import Tensor

from inspector.viz.figure import Figure, canvas
from inspector.viz.scales import Array, Scale, array, colour_bar, share, signed
from inspector.viz.sequences import plot_steps
from inspector.viz.style import COLOURS, DASHES, MUTED, panel, styled

OPEN, SHUT = 0.9, 0.1  # a gate beyond these is saturated: it passes all or nothing, and hardly learns
SIGMOID = ("input", "forget", "output", "reset", "update")


def saturated(gate: Tensor | Array) -> tuple[Array, Array]:
    """Shares of units that are open (above 0.9) and shut (below 0.1) at each step, from values (T, units)."""
    values = array(gate)
    counted = np.maximum(np.isfinite(values).sum(axis=1), 1)
    return (values > OPEN).sum(axis=1) / counted, (values < SHUT).sum(axis=1) / counted


@panel
def plot_gate(
    values: Tensor | Array, name: str, *, scale: Scale | None = None, valid: Tensor | None = None, ax: Axes | None = None
) -> Any:
    """One gate or state (T, units) as an image, units down. Gates go from 0 to 1 on a fixed scale, and the title says how
    many are saturated; cells and states are signed."""
    gate = array(values)
    ax = canvas(ax, (6, 1.6))
    scale = scale or (Scale(0.0, 1.0, "fixed") if name in SIGMOID else signed(gate))
    drawn = plot_steps(gate, scale=scale, valid=valid, ax=ax)
    words = name
    if name in SIGMOID:
        wide, shut = ((gate > OPEN)[np.isfinite(gate)].mean(), (gate < SHUT)[np.isfinite(gate)].mean())
        words = f"{name} gate · {share(float(wide))} open (> {OPEN}), {share(float(shut))} shut (< {SHUT})"
    ax.set_title(words)
    return drawn


@panel
def plot_saturation(gates: Mapping[str, Tensor | Array], *, ax: Axes | None = None) -> list[Any]:
    """Share of saturated units at each step: open solid, shut dashed, a colour for each gate."""
    ax = canvas(ax, (6, 1.6))
    lines: list[Any] = []
    for i, (name, gate) in enumerate((n, g) for n, g in gates.items() if n in SIGMOID):
        opened, shut = saturated(gate)
        lines += ax.plot(opened, color=COLOURS[i], label=f"{name} open")
        lines += ax.plot(shut, color=COLOURS[i], ls=DASHES[1], label=f"{name} shut")
    ax.set_ylim(-0.02, 1.02)
    ax.set_yticks([0, 0.5, 1], labels=["0", "50%", "100%"])
    ax.grid(axis="y")
    ax.set_title("saturated units")
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.45), ncols=6)
    return lines


def gates_figure(
    gates: Mapping[str, Tensor], *, signal: Tensor | None = None, title: str = "gates", facts: str = "", **figure: Any
) -> Figure:
    """One sample of one layer and direction: gates (T, units) each, and the input ``signal`` (T, F) above them."""
    first = next(iter(gates.values()))
    rows = len(gates) + 1 + (signal is not None)
    with styled():
        drawn = Figure(natural=(8.4, 1.35 * rows + 0.9), **figure)
        axes = list(drawn.subplots(rows, 1, sharex=True))
        if signal is not None:
            _signal(axes[0], array(signal))
        for ax, (name, gate) in zip(axes[signal is not None :], gates.items(), strict=False):
            scale = Scale(0.0, 1.0, "fixed") if name in SIGMOID else signed(gate)
            colour_bar(ax, plot_gate(gate, name, scale=scale, ax=ax), scale, shrink=1.0, aspect=9)
            ax.set_ylabel("unit", color=MUTED)
        plot_saturation(gates, ax=axes[-1])
        axes[-1].set_xlim(-0.5, first.shape[0] - 0.5)
        axes[-1].set_xlabel("step", color=MUTED)
    drawn.head(title, facts or f"{first.shape[0]} steps, {first.shape[1]} units")
    drawn.foot("Gates on a fixed scale from 0 (shut) to 1 (open); cells and states: red is +, blue −, white 0.")
    return drawn


def _signal(ax: Axes, signal: Array) -> None:
    if signal.shape[1] <= 8:
        for lane in range(signal.shape[1]):
            ax.plot(signal[:, lane], lw=0.9, color=COLOURS[lane % len(COLOURS)])
    else:
        finite = signal[np.isfinite(signal)]
        low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
        plot_steps(signal, scale=Scale(low, max(high, low + 1e-9), "range of the input"), cmap="Greys", ax=ax)
    ax.set_title("input")
