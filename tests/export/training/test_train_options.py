"""Which plan the options of `patchcut export train` ask for."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("torch", reason="needs patchcut[export]")

from patchcut_export.training.columns import ColumnPlan
from patchcut_export.training.foreground import TrainPlan
from patchcut_export.training.train_options import TrainOptions


@pytest.mark.parametrize(
    ("options", "plan"),
    [
        ({}, TrainPlan()),
        ({"k": 2}, TrainPlan()),
        ({"rounds": 2, "epochs": 3, "seed": 4}, TrainPlan(rounds=2, epochs=3, seed=4)),
        (
            {"batch": 8, "learning_rate": 0.01, "threshold": 0.1},
            TrainPlan(threshold=0.1, batch=8, learning_rate=0.01),
        ),
        ({"k": 3}, ColumnPlan(columns=3)),
        ({"loss": "ncut"}, ColumnPlan(loss="ncut", columns=2)),
        ({"loss": "cc", "alpha": 4.0, "k": 2}, ColumnPlan(loss="cc", alpha=4.0, columns=2)),
        ({"parts": True}, ColumnPlan(parts=True, columns=16)),
        ({"parts": True, "k": 2, "context": 0}, ColumnPlan(parts=True, columns=2, context=0)),
    ],
)
def test_options_become_a_plan(options: dict[str, Any], plan: TrainPlan | ColumnPlan) -> None:
    assert TrainOptions(**options).plan() == plan
