"""One text for what plots share: a docstring says what is special about its plot, and the rest is put in here.

The parameters in `_SHARED` need no description in a docstring. "Returns" says only what ``show=False`` returns where
that is more than one axes. The errors that most plots raise are added to "Raises", and the function that computes what
is drawn to "See Also".
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from textwrap import fill, indent

_SECTIONS = ("Parameters", "Returns", "Raises", "See Also", "Notes", "References", "Examples")
_SHARED = {
    "adata": "Cells with {results}.",
    "table": "Result of {tool}.",
    "key": "{key}.",
    "ncols": "Panels in a row.",
    "figsize": "Width and height in inches. ``None``: from what there is to draw.",
    "ax": "{place}.",
    "show": "Show the figure. ``None``: ``sc.settings.autoshow``.",
    "save": "``True`` or a suffix saves to ``sc.settings.figdir`` as ``{name}{{suffix}}``, as in scanpy; a ``Path``, "
    "or a string with a folder in it, is used as it is.",
    "return_fig": "Return the figure.",
}
_RETURNS = "The figure with ``return_fig=True``; else with ``show=False`` {axes}; else ``None``."


def plot_of[Plot: Callable[..., object]](source: str) -> Callable[[Plot], Plot]:
    """Complete the docstring of a plot of what ``sparsesc.tl.<source>`` computes."""

    def complete(plot: Plot) -> Plot:
        if plot.__doc__ is not None:  # python -OO keeps none
            plot.__doc__ = _whole(inspect.cleandoc(plot.__doc__), plot.__name__, inspect.signature(plot), source)
        return plot

    return complete


def _whole(doc: str, name: str, signature: inspect.Signature, source: str) -> str:
    """The docstring with all its sections."""
    summary, *parts = re.split(rf"^({'|'.join(_SECTIONS)})\n-+\n", doc, flags=re.MULTILINE)
    sections = {section: text.strip() for section, text in zip(parts[::2], parts[1::2], strict=True)}
    parameters = signature.parameters
    axes = " ".join(sections.get("Returns", "the axes").split())
    shared = _shared(name, parameters, source, axes)
    special = _entries(sections.get("Parameters", ""))
    together = {each: names for names in special for each in names.split(", ")}  # vmin, vmax
    ordered = {together.get(each, each): shared.get(each) for each in parameters} | special
    sections["Parameters"] = _text({names: text for names, text in ordered.items() if text})
    sections["Returns"] = _wrap(
        _RETURNS.format(axes=axes) + (" `adata` stays as it is." if "adata" in parameters else "")
    )
    raised = _errors(parameters, source) | _entries(sections.get("Raises", ""))
    sections["Raises"] = _text({error: raised[error] for error in sorted(raised)})
    related = f"sparsesc.tl.{source} : Computes what is drawn."
    sections["See Also"] = "\n".join([related, *sections.get("See Also", "").splitlines()])
    whole = [f"{section}\n{'-' * len(section)}\n{sections[section]}" for section in _SECTIONS if section in sections]
    return "\n\n".join([summary.strip(), *whole])


def _shared(name: str, parameters: Mapping[str, inspect.Parameter], source: str, axes: str) -> dict[str, str]:
    """Descriptions of the parameters that many plots have."""
    tool = f":func:`sparsesc.tl.{source}`"
    place = "Axes whose place all panels take" if axes.startswith("a dictionary") else "Axes to draw on"
    words = {
        "name": name,
        "tool": tool,
        "results": "a fitted sparse autoencoder" if source == "fit_sae" else f"the results of {tool}",
        "key": "Name of the sparse autoencoder" if _of_sae(parameters) else "Entry of ``uns`` with the results",
        "place": f"{place}, if there is one panel" if "ncols" in parameters else place,
    }
    return {parameter: _wrap(text.format(**words)) for parameter, text in _SHARED.items()}


def _errors(parameters: Mapping[str, inspect.Parameter], source: str) -> dict[str, str]:
    """What most plots raise."""
    feature = " or feature" if {"feature", "features"} & set(parameters) else ""
    missing = [f"there is no such sparse autoencoder{feature}"] if _of_sae(parameters) else []
    if "adata" in parameters and source != "fit_sae":
        missing.append(f":func:`sparsesc.tl.{source}` was not run")
    errors = {"KeyError": f"If {', or '.join(missing)}."} if missing else {}
    if any(parameter.annotation == "int" for parameter in parameters.values()):
        errors["ValueError"] = "If an option is out of its range."
    return errors


def _of_sae(parameters: Mapping[str, inspect.Parameter]) -> bool:
    return "key" in parameters and parameters["key"].default == "sae"


def _entries(text: str) -> dict[str, str]:
    """Names and their indented descriptions."""
    entries = re.findall(r"^(\S.*)\n((?:(?: .*)?\n?)*)", text + "\n", flags=re.MULTILINE)
    return {name: inspect.cleandoc("\n" + description) for name, description in entries}


def _text(entries: Mapping[str, str]) -> str:
    return "\n".join(f"{name}\n{indent(text, '    ')}" for name, text in entries.items())


def _wrap(text: str) -> str:
    return fill(text, 110, break_long_words=False, break_on_hyphens=False)
