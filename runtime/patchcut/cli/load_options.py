"""What commands take to load a segmenter."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from patchcut.errors import OptionError

if TYPE_CHECKING:
    from patchcut.heads import FittedHead
    from patchcut.segmenter import Segmenter


@dataclass(frozen=True)
class LoadOptions:
    """The keywords of `patchcut.load`.

    Attributes:
        head_settings: of a fitted head; what is None is its default.
        parts_k: `k` of the head `parts`, or of "kmeans" where that is "auto".
    """

    bundle: Path | None = None
    engine: str = "auto"
    device: str = "auto"
    precision: str = "auto"
    size: int | None = None
    head: str = "auto"
    head_settings: Mapping[str, object] = field(default_factory=dict)
    mode: str = "foreground"
    parts: str = "auto"
    parts_k: int | None = None
    refine: str = "auto"
    min_score: float = 0.0
    nothing_below: float | None = None
    single: bool = False
    threads: int | None = None

    def load(self) -> Segmenter:
        """The segmenter asked for.

        Raises:
            OptionError: an option has a value that is not allowed, or is no setting of the head.
            PatchcutError: as `patchcut.load` does.
        """
        import patchcut
        from patchcut.heads import set_up

        return patchcut.load(
            self.bundle,
            engine=self.engine,
            device=self.device,
            precision=self.precision,
            size=self.size,
            head=set_up(self.head, **self.head_settings),
            mode=self.mode,
            parts=self._set_up_parts(),
            refine=self.refine,
            min_score=self.min_score,
            nothing_below=self.nothing_below,
            single=self.single,
            threads=self.threads,
        )

    def _set_up_parts(self) -> str | FittedHead:
        from patchcut.heads import set_up

        name = "kmeans" if self.parts == "auto" and self.parts_k is not None else self.parts
        try:
            return set_up(name, k=self.parts_k)
        except OptionError as error:
            raise OptionError("parts_k", error.what, error.remedy) from error
