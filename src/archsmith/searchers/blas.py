"""numpy's matrix products on one thread: a searcher's are small, and beside training children a second thread only waits.

Measured beside two busy processes on two cores: sampling 32 walks of a controller takes 235 ms with two threads, and 3 with
one; alone, as long with one as with two.
"""

from __future__ import annotations

import functools
from contextlib import AbstractContextManager

from threadpoolctl import ThreadpoolController


@functools.cache
def _libraries() -> ThreadpoolController:
    import numpy as np  # noqa: F401  # its library of matrix products must be there to be found

    return ThreadpoolController()


def one_blas_thread() -> AbstractContextManager[object]:
    """While it is entered, this process's BLAS computes on one thread. Costs some 30 microseconds."""
    limited: AbstractContextManager[object] = _libraries().limit(limits=1, user_api="blas")
    return limited
