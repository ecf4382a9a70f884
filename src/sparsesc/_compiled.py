"""One way to compile loops: the interpreter's lock is released, so that threads share the work, and code is kept."""

from __future__ import annotations

import numba

compiled = numba.njit(nogil=True, cache=True)
