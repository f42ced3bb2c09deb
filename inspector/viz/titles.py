"""The words on a picture of an attribution: title, facts, and the label of each sample."""

from __future__ import annotations

from inspector.records import Attribution, Samples
from inspector.tensors import Leaf
from inspector.viz.figure import shorten
from inspector.viz.scales import number
from inspector.words.facts import Piece, baseline_of, options_of, target_of, true_of


def title_of(attribution: Attribution, piece: Piece) -> str:
    target, method = shorten(target_of(attribution), 60), shorten(attribution.method, 60)
    where = f" at {shorten(attribution.layer, 80)}" if attribution.layer is not None else ""
    return method + where + (f" of {piece.name}" if piece.name else "") + (f" → {target}" if target else "")


def facts_line(attribution: Attribution, shown: int) -> str:
    """Samples shown, baseline, options and completeness in one line."""
    total = len(attribution.samples)
    facts = [shown_of(shown, total)]
    base = baseline_of(attribution)
    facts += [f"baseline {base}"] * bool(base) + options_of(attribution)
    if attribution.delta is not None and attribution.delta.numel():
        facts.append(f"completeness: off by {number(attribution.delta.abs().max().item())} at most")
    return " · ".join(facts)


def shown_of(shown: int, total: int) -> str:
    """How many of how many samples are drawn."""
    return f"{shown} of {total:,} samples shown" if shown < total else f"{total:,} sample{'s' * (total != 1)}"


def sample_label(attribution: Attribution, index: int, width: int = 20) -> str:
    """Which sample, what it is explained for, what it truly is, and by how much the sum is off."""
    lines = [f"sample {index}"]
    if not target_of(attribution):
        lines.append(shorten(f"→ {target_of(attribution, index)}", width))
    true = true_of(attribution.samples, index)
    lines += [shorten(f"true {true}", width)] if true else []
    if attribution.delta is not None and attribution.delta.numel() == len(attribution.samples):
        lines.append(f"δ {number(attribution.delta.reshape(-1)[index].item(), sign=True)}")
    return "\n".join(lines)


def sample_line(attribution: Attribution, index: int) -> str:
    """The same in one line."""
    return sample_label(attribution, index).replace("\n→", " →").replace("\n", " · ")


def over(shown: int) -> str:
    """The group that a scale is shared by."""
    return f"{shown} samples" if shown > 1 else "this sample"


def evidence_note(samples: Samples, leaf: Leaf) -> str:
    """What the orange marks are, where the true evidence of this input is known."""
    return "Orange: the true evidence." if samples.evidence_at(leaf) is not None else ""
