"""Threads that each run batches of their own.

torch can spread one operation over all threads, too; but then they wait for each other after every
operation, hundreds of times a batch. Where another program takes a core for a while, all of them
wait for the one that was held up: prediction was seen to become thirty times slower beside a busy
process. Threads with batches of their own never wait.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import ParamSpec, TypeVar

Given = ParamSpec("Given")
Item = TypeVar("Item")
Made = TypeVar("Made")


class Workers:
    """Run functions in threads, each of which uses one core; to be used in ``with``.

    Parameters
    ----------
    n
        How many threads. With 1 functions run in the caller's thread, when they are submitted,
        and use as many cores as torch was told to.
    """

    def __init__(self, n: int) -> None:
        self.n = max(n, 1)
        self._pool: ThreadPoolExecutor | None = None

    def __enter__(self) -> Workers:
        import torch
        from threadpoolctl import threadpool_limits

        self._n_threads = torch.get_num_threads()
        if self.n > 1:
            self._numpy = threadpool_limits(1, user_api="blas")
            # torch keeps the number a thread; a new thread takes over what was set last anywhere.
            self._pool = ThreadPoolExecutor(
                self.n, "sclinguist", initializer=torch.set_num_threads, initargs=(1,)
            )
        return self

    def submit(
        self, function: Callable[Given, Made], *args: Given.args, **kwargs: Given.kwargs
    ) -> Future[Made]:
        """Run a function as soon as a thread is free."""
        if self._pool is not None:
            return self._pool.submit(function, *args, **kwargs)
        future: Future[Made] = Future()
        try:
            future.set_result(function(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future

    def map(self, function: Callable[[Item], Made], items: Iterable[Item]) -> list[Made]:
        """Apply a function to items, and return what it makes of them in their order."""
        return [future.result() for future in [self.submit(function, item) for item in items]]

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Drop what has not begun, and wait for what has."""
        import torch

        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            torch.set_num_threads(self._n_threads)
            self._numpy.restore_original_limits()
