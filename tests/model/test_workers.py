import gc
import threading
import weakref

import pytest
import torch
from threadpoolctl import threadpool_info, threadpool_limits

from sclinguist_core.model.workers import Workers


@pytest.fixture(autouse=True)
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def threads_of(_):
    blas = {info["num_threads"] for info in threadpool_info() if info["user_api"] == "blas"}
    return torch.get_num_threads(), blas, threading.current_thread().name


def test_each_thread_uses_one_core_and_the_caller_what_it_did():
    blas_before = threads_of(None)[1]
    with Workers(3) as workers:
        seen = workers.map(threads_of, range(12))
        assert torch.get_num_threads() == 2
    assert {(n, *blas) for n, blas, _ in seen} == {(1, 1)}
    assert all(name.startswith("sclinguist") for _, _, name in seen)
    assert torch.get_num_threads() == 2
    assert threads_of(None)[1] == blas_before
    new = []
    thread = threading.Thread(target=lambda: new.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert new == [2]


def test_one_worker_is_the_caller_itself():
    with Workers(1) as workers:
        assert workers.map(threads_of, [0])[0][::2] == (2, threading.current_thread().name)


@pytest.mark.parametrize("n", [1, 3])
def test_results_come_in_order_and_errors_where_they_belong(n):
    with Workers(n) as workers:
        assert workers.map(lambda x: x * x, range(20)) == [x * x for x in range(20)]
        futures = [workers.submit(divmod, 1, x) for x in (1, 0, 2)]
        assert futures[2].result() == (0, 1)
        with pytest.raises(ZeroDivisionError):
            futures[1].result()


def test_what_has_not_begun_is_dropped_when_the_caller_leaves():
    begun, go = [], threading.Event()

    def wait(i):
        begun.append(i)
        go.wait(10)

    def interrupted():
        with Workers(2) as workers:
            for i in range(50):
                workers.submit(wait, i)
            threading.Timer(0.2, go.set).start()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert len(begun) <= 4
    assert not [t for t in threading.enumerate() if t.name.startswith("sclinguist")]


class Batch:
    """Something large that a failed call had."""


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("by", ["submit", "map"])
def test_what_a_failed_call_had_goes_with_its_error(n, by):
    held = []

    def fail(_):
        batch = Batch()
        held.append(weakref.ref(batch))
        raise RuntimeError

    gc.collect()
    gc.disable()
    try:
        with Workers(n) as workers:
            if by == "map":
                with pytest.raises(RuntimeError):
                    workers.map(fail, [0])
            else:
                future = workers.submit(fail, 0)
                assert isinstance(future.exception(), RuntimeError)
                del future
        assert [ref() for ref in held] == [None]
    finally:
        gc.enable()


def test_uses_that_overlap_leave_the_limits_as_they_were():
    with threadpool_limits(2, user_api="blas"):
        assert threads_of(None)[:2] == (2, {2})
        one, other = Workers(2), Workers(2)
        one.__enter__()
        other.__enter__()
        one.__exit__(None, None, None)
        assert threads_of(None)[1] == {1}  # the other still is at work
        other.__exit__(None, None, None)
        assert threads_of(None)[:2] == (2, {2})


def test_a_thread_that_began_meanwhile_is_not_limited_for_good():
    seen = []

    def use():
        with Workers(2) as workers:
            workers.map(threads_of, range(4))
            seen.append(torch.get_num_threads())

    with Workers(2) as workers:
        workers.map(threads_of, range(4))
        thread = threading.Thread(target=use)
        thread.start()
        thread.join()
    assert seen == [2]
    assert torch.get_num_threads() == 2
