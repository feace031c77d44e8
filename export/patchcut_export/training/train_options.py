"""The command line's options of training, turned into the plan that they ask for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from patchcut.errors import OptionError

from patchcut_export.training.columns import ColumnPlan
from patchcut_export.training.foreground import TrainPlan

_COLUMNS, _PARTS = 2, 16


@dataclass(frozen=True)
class TrainOptions:
    """What was given; None is the plan's own.

    Attributes:
        loss: "ncut" or "cc", None for the foreground in stages.
        k: columns.
        parts: whether they are parts of the foreground.
        alpha: of "cc".
        context: of columns.
        threshold: of the head's affinity.
        rounds: of the foreground in stages.
        seed, epochs, batch, learning_rate: of whatever is trained.
    """

    loss: str | None = None
    k: int | None = None
    parts: bool = False
    alpha: float | None = None
    context: int | None = None
    threshold: float | None = None
    rounds: int | None = None
    seed: int = 0
    epochs: int | None = None
    batch: int = 32
    learning_rate: float = 1e-3

    def plan(self) -> TrainPlan | ColumnPlan:
        """Columns where a loss, parts or another k than 2 is given, else the foreground in stages.

        Raises:
            OptionError: an option is for something else than what is trained.
        """
        common = _given(
            seed=self.seed,
            batch=self.batch,
            learning_rate=self.learning_rate,
            threshold=self.threshold,
            epochs=self.epochs,
        )
        if self.alpha is not None and self.loss != "cc":
            raise OptionError("alpha", f"is for --loss cc, got {self.alpha:g} without it")
        if self.loss is None and not self.parts and self.k in (None, 2):
            if self.context is not None:
                raise OptionError("context", f"is for --loss, -k or --parts, got {self.context} without one")
            return TrainPlan(**common, **_given(rounds=self.rounds))
        if self.rounds is not None:
            what = f"is for a foreground in stages, without --loss, -k or --parts, got {self.rounds}"
            raise OptionError("rounds", what)
        if self.parts and self.threshold is not None:
            raise OptionError("threshold", f"is that of the bundle's head for parts, got {self.threshold:g}")
        columns = self.k if self.k is not None else (_PARTS if self.parts else _COLUMNS)
        own = _given(loss=self.loss, alpha=self.alpha, context=self.context)
        return ColumnPlan(columns=columns, parts=self.parts, **common, **own)


def _given(**options: object) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}
