"""The plan of training that the command line's options ask for."""

from __future__ import annotations

from typing import Any

from patchcut.errors import OptionError

from patchcut_export.training.columns import ColumnPlan
from patchcut_export.training.foreground import ForegroundPlan

# Columns where --k is not given.
_COLUMNS, _PARTS = 2, 16


def choose_plan(
    *,
    loss: str | None = None,
    k: int | None = None,
    parts: bool = False,
    alpha: float | None = None,
    context: int | None = None,
    rounds: int | None = None,
    threshold: float | None = None,
    **common: float | None,
) -> ForegroundPlan | ColumnPlan:
    """Columns where a loss, parts or another k than 2 is given, else the foreground in stages.

    Args:
        loss: "ncut" or "cc", None for the foreground in stages.
        k: columns.
        parts: whether they are parts of the foreground.
        alpha: the setting of the loss "cc".
        context: a setting of columns.
        rounds: a setting of the foreground in stages.
        threshold: the head's affinity's.
        common: seed, epochs, batch and learning_rate of either plan; None is the plan's own value.
    Raises:
        OptionError: an option is for something else than what is trained.
    """
    shared = _given(threshold=threshold, **common)
    if alpha is not None and loss != "cc":
        raise OptionError("alpha", f"is for --loss cc, got {alpha:g} without it")
    if loss is None and not parts and k in (None, 2):
        if context is not None:
            raise OptionError("context", f"is for --loss, -k or --parts, got {context} without one")
        return ForegroundPlan(**shared, **_given(rounds=rounds))
    if rounds is not None:
        problem = f"is for a foreground in stages, without --loss, -k or --parts, got {rounds}"
        raise OptionError("rounds", problem)
    if parts and threshold is not None:
        raise OptionError("threshold", f"is that of the bundle's head for parts, got {threshold:g}")
    columns = k if k is not None else (_PARTS if parts else _COLUMNS)
    own = _given(loss=loss, alpha=alpha, context=context)
    return ColumnPlan(columns=columns, parts=parts, **shared, **own)


def _given(**options: object) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}
