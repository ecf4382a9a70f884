"""Training options in the signatures and docstrings of the functions that take them."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Callable
from typing import Any

from sparsesc._train_config import option_docs, option_types, public_options

_PLACE = "    {training_options}\n"


def training_options[F: Callable[..., Any]](*, after: str, short: bool = False) -> Callable[[F], F]:
    """Put the training options into the signature and the docstring of a function that takes them as ``**options``.

    Parameters
    ----------
    after
        The parameter that they follow.
    short
        Refer to :func:`sparsesc.tl.fit_sae` instead of describing each.
    """

    def decorate(function: F) -> F:
        types = option_types()
        named = [p for p in inspect.signature(function).parameters.values() if p.kind is not p.VAR_KEYWORD]
        options = [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=option.default, annotation=types[name])
            for name, option in public_options().items()
        ]
        place = next(i for i, p in enumerate(named) if p.name == after) + 1
        annotation = inspect.signature(function).return_annotation
        function.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
            [*named[:place], *options, *named[place:]], return_annotation=annotation
        )
        function.__annotations__ |= types
        docs = option_docs()
        lines = (
            f"{', '.join(types)}\n    As in :func:`fit_sae`."
            if short
            else "\n".join(f"{name}\n{textwrap.indent(docs[name], '    ')}" for name in types)
        )
        function.__doc__ = (function.__doc__ or "").replace(_PLACE, textwrap.indent(lines, "    ") + "\n")
        return function

    return decorate
