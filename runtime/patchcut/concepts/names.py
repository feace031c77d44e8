"""What a concept may be called."""

from __future__ import annotations

from patchcut.checks import check_text, shown
from patchcut.errors import OptionError

MAX_LETTERS = 100
BACKGROUND = "background"


def check_name(name: object) -> None:
    """Checks that a text is a concept's name.

    Raises:
        OptionError: '[name] must be a name and no path, got "cups/mug"; ...'.
    Examples:
        >>> patchcut.concepts.names.check_name("fire extinguisher") is None
        True
    """
    check_text("name", name)
    assert isinstance(name, str)
    if not name.strip() or name != name.strip():
        raise OptionError("name", f"must be a word or several, got {shown(name)}", 'such as "mug"')
    if "/" in name or "\\" in name or name.startswith("."):
        raise OptionError("name", f"must be a name and no path, got {shown(name)}", 'such as "mug"')
    if "," in name or not name.isprintable() or len(name) > MAX_LETTERS:
        what = f"must have up to {MAX_LETTERS} letters and no comma, got {shown(name)}"
        raise OptionError("name", what, 'such as "mug"')
    if name == BACKGROUND:
        raise OptionError(
            "name", f'must not be "{BACKGROUND}", which is what no concept is', "choose another"
        )
