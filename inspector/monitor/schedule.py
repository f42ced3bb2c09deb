"""Which steps are due: a number, a function of the step, or a share of the step time that monitoring may take."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

Every: TypeAlias = int | str | Callable[[int], bool]

_LONGEST = 1000  # steps between two measurements, however dear they are
_SOON = 10  # steps until the second one, which tells what they cost
_ALERT = 20  # steps that are due after a jump
_REST = 10 * _ALERT  # from one jump to the next that counts: where gradients are small and noisy, jumps never end


def schedule(every: Every) -> Schedule:
    """Reads ``every``; raises ValueError that says what can be given."""
    if isinstance(every, bool) or (isinstance(every, int) and every < 1):
        raise ValueError(
            f"every={every!r} is no interval; give 1, 2, ... steps, a function of the step, or a share like '2%'"
        )
    if isinstance(every, int):
        return Schedule(interval=every)
    if callable(every):
        return Schedule(wanted=every)
    return Schedule(share=_share(every))


def _share(text: str) -> float:
    try:
        share = float(str(text).removesuffix("%")) / 100.0 if str(text).endswith("%") else 0.0
    except ValueError:
        share = 0.0
    if not 0 < share < 1:
        raise ValueError(f"every={text!r} is no share of the step time; write a percentage like '2%'")
    return share


class Schedule:
    """``due(step)``: is it to be measured? Steps count from 1. The first one of a session is, so that short runs show
    something; after a jump, the next ones are too. Given a share, ``note`` adapts the intervals to what measuring, and
    the look at every step's gradient, turned out to cost: each has half of the share."""

    def __init__(self, interval: int = 1, wanted: Callable[[int], bool] | None = None, share: float | None = None) -> None:
        self.interval, self.wanted, self.share = interval if share is None else _SOON, wanted, share
        self.first: int | None = None
        self.last_due = 0
        self.alert_until = 0
        self.alerted: int | None = None
        self.calm = _ALERT  # norms in a row that were finite
        self.look_interval, self.last_look = 1, 0
        self._plain: float | None = None  # seconds of a step without its monitoring, smoothed
        self._cost: float | None = None  # seconds that measuring a step takes, smoothed
        self._look: float | None = None  # and those of a step that is only looked at
        self._warm = False

    def due(self, step: int) -> bool:
        if self.wanted is not None:
            return bool(self.wanted(step)) or step <= self.alert_until
        self.first = self.first or step
        if step in (self.first, self.last_due) or step <= self.alert_until:
            due = True
        else:
            due = step - self.last_due >= self.interval if self.share is not None else step % self.interval == 0
        self.last_due = step if due else self.last_due
        return due

    def alert(self, step: int, *, always: bool = False) -> None:
        """The next steps are due; after a mere jump not again before a rest, so that the cost stays near what was asked.

        always: the norm is not finite. The first such steps tell where that began, and those after them nothing new: they
        make no step due until as many norms in a row were finite.
        """
        if always:
            renewed, self.calm = self.calm >= _ALERT, 0
        else:
            renewed = self.alerted is None or step - self.alerted >= _REST
        if renewed:
            self.alerted, self.alert_until = step, step + _ALERT

    def heard(self) -> None:
        """The norm of a step's gradient was finite."""
        self.calm += 1

    def looks(self, step: int) -> bool:
        """Is the norm of this step's gradient to be looked at, though the step is not measured?"""
        again = step == self.last_look  # another optimizer's part of the same step
        looks = again or step - self.last_look >= self.look_interval or step <= self.alert_until
        self.last_look = step if looks else self.last_look
        return looks

    def note(self, step: int, due: bool, seconds: float, spent: float) -> None:
        """How long a step took, and how much of it was ours. The first step that is measured costs more than others."""
        self._plain = _smooth(self._plain, seconds - spent)
        if due and self._warm:
            self._cost = _smooth(self._cost, spent)
        elif due:
            self._warm = True
        elif step == self.last_look:
            self._look = _smooth(self._look, spent)
        if self.share is not None and self._plain > 0:
            budget = self.share * self._plain / 2
            self.interval = self.interval if self._cost is None else _interval(self._cost / budget)
            self.look_interval = 1 if self._look is None else _interval(self._look / budget)


def _interval(wanted: float) -> int:
    return int(min(max(wanted + 0.999, 1), _LONGEST))


def _smooth(old: float | None, new: float, weight: float = 0.2) -> float:
    return new if old is None else (1 - weight) * old + weight * new
