"""Routes of other services, so that their clients work unchanged against this one."""

from __future__ import annotations

from tastemaker.schema.errors import InputError
from tastemaker.serving.compat import gorse, personalize
from tastemaker.serving.compat.door import Door

DOORS: dict[str, Door] = {"gorse": gorse.DOOR, "personalize": personalize.DOOR}


def doors(names: list[str] | tuple[str, ...]) -> list[Door]:
    """The doors of these names.

    Raises:
        InputError: a name is unknown.
    """
    unknown = [name for name in names if name not in DOORS]
    if unknown:
        raise InputError(f"There is no door {unknown[0]!r}. Choose from: {', '.join(DOORS)}.")
    return [DOORS[name] for name in dict.fromkeys(names)]
