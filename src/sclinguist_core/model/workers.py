"""Threads that each run batches of their own.

torch can spread one operation over all threads, too; but then they wait for each other after every
operation, hundreds of times a batch. Where another program takes a core for a while, all of them
wait for the one that was held up: prediction was seen to become thirty times slower beside a busy
process. Threads with batches of their own never wait.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock
from types import TracebackType
from typing import ParamSpec, TypeVar

Given = ParamSpec("Given")
Item = TypeVar("Item")
Made = TypeVar("Made")


class _Limits:
    """Limits of the numbers of threads, which hold for the whole process.

    Whoever comes first notes what they were, and whoever leaves last sets them to that again: uses
    from several threads overlap without one lying within the other.
    """

    def __init__(self) -> None:
        self._changing = Lock()
        self._n_users = 0

    def enter(self) -> None:
        """Let BLAS use one thread for each of ours."""
        import torch
        from threadpoolctl import threadpool_limits

        with self._changing:
            # Asked for the first time, torch sets a new thread's number to what was set last
            # anywhere: that is the one of the pool's threads where there is a pool already.
            n_threads = torch.get_num_threads()
            if self._n_users == 0:
                self._n_threads = n_threads
                self._blas = threadpool_limits(1, user_api="blas")
            else:
                torch.set_num_threads(self._n_threads)
            self._n_users += 1

    def leave(self) -> None:
        """Undo what the first has set, if this is the last."""
        import torch

        with self._changing:
            self._n_users -= 1
            if self._n_users == 0:
                torch.set_num_threads(self._n_threads)
                self._blas.restore_original_limits()


_limits = _Limits()


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

        if self.n > 1:
            _limits.enter()
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
            try:
                future.set_result(function(*args, **kwargs))
            except Exception as error:
                future.set_exception(error)
            return future
        finally:
            # The error knows this frame, which would know the error: what a failed batch had in
            # memory would stay there for as long as nobody looks for cycles.
            del future

    def map(self, function: Callable[[Item], Made], items: Iterable[Item]) -> list[Made]:
        """Apply a function to items, and return what it makes of them in their order."""
        futures = deque(self.submit(function, item) for item in items)
        # None is kept when it is looked at, for the same reason as in `submit`.
        return [futures.popleft().result() for _ in range(len(futures))]

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Drop what has not begun, and wait for what has."""
        if self._pool is not None:
            try:
                self._pool.shutdown(cancel_futures=True)
            finally:
                self._pool = None
                _limits.leave()
