"""Messages through scanpy's logger, so that ``sc.settings.verbosity`` is obeyed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tqdm import tqdm


def info(msg: str) -> None:
    """Say what a function did (verbosity 2 and up)."""
    from scanpy import logging as logg

    logg.info(msg)


def hint(msg: str) -> None:
    """Say what to do next (verbosity 3 and up)."""
    from scanpy import logging as logg

    logg.hint(msg)


def warning(msg: str) -> None:
    """Say what the user should look at (verbosity 1 and up)."""
    from scanpy import logging as logg

    logg.warning(msg)


def progress(
    iterable: Iterable[Any] | None = None, *, total: int | None = None, desc: str = "", enabled: bool | None = None
) -> tqdm:
    """A tqdm bar: shown by default, silent with ``enabled=False`` or at verbosity 0."""
    from scanpy import settings
    from tqdm.auto import tqdm

    shown = settings.verbosity.value > 0 if enabled is None else enabled
    return tqdm(iterable, total=total, desc=desc, disable=not shown, leave=False)
