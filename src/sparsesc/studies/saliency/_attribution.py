"""Derivatives of units by the nodes of the first layer, one row per pair of a cell and a unit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch

METHODS = ("guided", "gradient", "gradient_x_input", "integrated_gradients")
TIMES_INPUT = ("gradient_x_input", "integrated_gradients")
_PAIRS = 4096


def node_gradients(
    behind: Callable[..., torch.Tensor],
    nodes: torch.Tensor,
    rest: tuple[torch.Tensor, ...],
    unit: np.ndarray,
    *,
    method: str,
    start: torch.Tensor | None = None,
    n_steps: int = 32,
) -> np.ndarray:
    """Derivative of a unit by each node.

    Parameters
    ----------
    behind
        Maps nodes (and the rest) to units.
    nodes
        Pairs x nodes.
    rest
        The other inputs of `behind`, one row per pair.
    unit
        Unit of each pair.
    method
        ``"gradient_x_input"`` has the derivatives of ``"gradient"``; with ``"integrated_gradients"`` they are averaged
        along the line from `start`.
    start
        Pairs x nodes: where the line starts.
    n_steps
        Points on it.

    Returns
    -------
    Pairs x nodes, float32.
    """
    import torch

    out = np.empty(tuple(nodes.shape), np.float32)
    at_once = _PAIRS if method != "integrated_gradients" else max(_PAIRS // n_steps, 1)
    target = torch.as_tensor(unit, dtype=torch.int64, device=nodes.device)
    for first in range(0, len(nodes), at_once):
        part = slice(first, first + at_once)
        where, others, units = nodes[part].detach(), tuple(value[part] for value in rest), target[part]
        if method == "integrated_gradients":
            if start is None:
                msg = "Integrated gradients need a point to start from."
                raise ValueError(msg)
            out[part] = _integrated(behind, where, others, units, start[part], n_steps)
        else:
            with guided(behind) if method == "guided" else nullcontext():
                out[part] = _gradient(behind, where, others, units)
    return out


def _gradient(behind: Any, nodes: torch.Tensor, rest: tuple[torch.Tensor, ...], unit: torch.Tensor) -> np.ndarray:
    import torch

    nodes = nodes.clone().requires_grad_(True)
    with torch.enable_grad():
        value = behind(nodes, *rest).gather(1, unit[:, None]).sum()
    return torch.autograd.grad(value, nodes)[0].cpu().numpy()


def _integrated(
    behind: Any, nodes: torch.Tensor, rest: tuple[torch.Tensor, ...], unit: torch.Tensor, start: torch.Tensor, n: int
) -> np.ndarray:
    """The mean derivative along the line. Nodes are linear in genes, so a line of genes is a line of nodes."""
    from captum.attr import IntegratedGradients

    engine = IntegratedGradients(behind, multiply_by_inputs=False)
    mean = engine.attribute(
        nodes, baselines=start.detach(), target=unit, additional_forward_args=rest or None, n_steps=n
    )
    return mean.detach().cpu().numpy()


@contextmanager
def guided(module: Any) -> Iterator[None]:
    """Let only positive derivatives through activations in backward passes: guided backpropagation.

    For a rectifier this is the published rule. A softplus has a derivative everywhere, a smooth step instead of a step:
    what comes back through it is multiplied by this derivative, and cut at 0.
    """
    from torch import nn

    kinds = (nn.ReLU, nn.Softplus, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU)

    def positive(_: Any, grad_input: tuple[torch.Tensor, ...], __: Any) -> tuple[torch.Tensor, ...]:
        return tuple(value.clamp(min=0) for value in grad_input)

    hooks = [m.register_full_backward_hook(positive) for m in module.modules() if isinstance(m, kinds)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
