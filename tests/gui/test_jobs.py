"""Work beside the window, with a hand-driven thread."""

import pytest

from napari_sclinguist.control.jobs import JobQueue, JobRunner, State, single_step
from napari_sclinguist.control.messages import Action
from sclinguist_core.errors import InputError
from sclinguist_core.inference.progress import Progress


class Thread:
    """A thread that the test moves forward."""

    def __init__(self):
        self.stopped = False

    def __call__(self, steps, listener):
        self.generator, self.listener = steps(), listener
        self.stopped = False
        return self.stop

    def stop(self):
        self.stopped = True

    def step(self):
        """One step, as `napari_sclinguist.widgets.worker` does it."""
        if self.stopped:
            self.generator.close()
            self.listener.ended()
            return
        try:
            self.listener.progressed(next(self.generator))
        except StopIteration as end:
            self.listener.returned(end.value)
            self.listener.ended()
        except Exception as error:
            self.listener.raised(error)
            self.listener.ended()


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def thread():
    return Thread()


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def runner(thread, clock):
    runner = JobRunner(thread, clock)
    runner.heard = []
    runner.reports = []
    runner.message.connect(lambda message: runner.heard.append(message))
    runner.reported.connect(lambda report: runner.reports.append(report))
    return runner


def count_to(n, result="done"):
    def steps():
        for i in range(n + 1):
            yield Progress(i, n, "counting")
        return result

    return steps


def test_the_result_arrives_and_the_runner_is_idle_again(runner, thread):
    results = []
    runner.start("Counting", count_to(1), results.append)
    assert (runner.state, runner.title) == (State.RUNNING, "Counting")
    for _ in range(3):
        thread.step()
    assert results == ["done"]
    assert (runner.state, runner.title) == (State.IDLE, "")
    assert runner.heard == []


def test_a_second_job_is_refused_while_one_runs(runner, thread):
    runner.start("Counting", count_to(5), lambda _: None)
    with pytest.raises(InputError, match="Counting is still running"):
        runner.start("Another", count_to(1), lambda _: None)
    runner.cancel()
    with pytest.raises(InputError, match="still running"):  # also while it is stopping
        runner.start("Another", count_to(1), lambda _: None)
    thread.step()
    runner.start("Another", count_to(1), lambda _: None)
    assert runner.title == "Another"


def test_a_cancelled_job_gives_no_result_and_no_report(runner, thread):
    results = []
    runner.start("Counting", count_to(5), results.append)
    thread.step()
    runner.cancel()
    assert runner.state is State.STOPPING
    listener, n_reports = thread.listener, len(runner.reports)
    listener.progressed(Progress(5, 5, "counting"))  # was on its way
    listener.returned("late")
    thread.step()
    assert results == []
    assert len(runner.reports) == n_reports
    assert runner.state is State.IDLE
    assert runner.heard[-1].text == "Counting was cancelled."


def test_a_file_that_was_written_before_the_job_could_be_stopped_counts(runner, thread):
    results = []
    runner.start("Saving", count_to(0, "a file"), results.append, keeps_result_when_late=True)
    thread.step()
    runner.cancel()
    thread.listener.returned("a file")  # was being written
    thread.listener.ended()
    assert results == ["a file"]
    assert runner.state is State.IDLE
    assert [one.text for one in runner.heard] == ["Saving had finished before it could be stopped."]


def test_a_file_that_was_not_finished_does_not_count(runner, thread):
    results = []
    runner.start("Saving", count_to(5, "a file"), results.append, keeps_result_when_late=True)
    thread.step()
    runner.cancel()
    thread.step()
    thread.listener.returned("late")  # another job may run by now
    assert results == []
    assert [one.text for one in runner.heard] == ["Saving was cancelled."]


def test_news_of_an_earlier_job_is_dropped(runner, thread):
    results = []
    runner.start("First", count_to(5), results.append)
    old = thread.listener
    runner.cancel()
    thread.step()
    thread.stopped = False
    runner.start("Second", count_to(5), results.append)
    old.returned("late")
    old.raised(ValueError("late"))
    old.ended()
    assert results == []
    assert (runner.state, runner.title) == (State.RUNNING, "Second")


def test_an_error_is_one_sentence_with_details_and_a_remedy(runner, thread):
    def steps():
        yield Progress(0, 1, "trying")
        raise InputError("The file is empty; choose another.")

    remedy = Action(label="Again", run=lambda: None)
    runner.start("Reading", steps, lambda _: None, lambda error: remedy)
    thread.step()
    thread.step()
    (message,) = runner.heard
    assert message.text == "The file is empty; choose another."
    assert "Traceback" in message.details
    assert message.action is remedy
    assert runner.state is State.IDLE


def test_an_unexpected_error_says_what_was_being_done(runner, thread):
    def steps():
        raise RuntimeError("CUDA error: something\nlong story")
        yield

    runner.start("Predicting proteins", steps, lambda _: None)
    thread.step()
    assert runner.heard[0].text == (
        "Predicting proteins failed unexpectedly (RuntimeError: CUDA error: something)."
    )


def test_a_result_that_cannot_be_shown_is_a_message_too(runner, thread):
    def broken(result):
        raise KeyError("CD19")

    runner.start("Counting", single_step(lambda: 1), broken)
    thread.step()
    assert "Counting failed unexpectedly (KeyError" in runner.heard[0].text
    assert runner.state is State.IDLE


def test_reports_come_at_most_five_times_a_second_with_rate_and_time_left(runner, thread, clock):
    runner.start("Counting", count_to(100), lambda _: None)
    for i in range(101):
        clock.now = i * 0.05
        thread.step()
    assert len(runner.reports) <= 5 * 5 + 2
    middle = runner.reports[len(runner.reports) // 2]
    assert middle.rate == pytest.approx(20)
    assert middle.seconds_left == pytest.approx((100 - middle.done) / 20)
    assert runner.reports[-1].done == 100


def test_after_closing_nothing_is_heard(runner, thread):
    results, states = [], []
    runner.start("Counting", count_to(5), results.append)
    runner.state_changed.connect(lambda state: states.append(state))
    runner.close()
    n_heard = len(states)
    thread.listener.returned("late")
    thread.step()
    assert thread.stopped
    assert results == []
    assert runner.heard == []
    assert len(states) == n_heard


# --- several, one after another -------------------------------------------------------------------


@pytest.fixture
def queue(thread):
    queue = JobQueue(thread)
    queue.results, queue.said = [], []
    queue.message.connect(lambda message: queue.said.append(message.text))
    return queue


def steps_of(name):
    """A job of two steps that returns its name."""

    def steps():
        yield Progress(1, 2, name)
        yield Progress(2, 2, name)
        return name

    return steps


def test_jobs_of_a_queue_run_one_after_another(queue, thread):
    for name in ("first", "second"):
        queue.add(name, steps_of(name), queue.results.append)
    for _ in range(6):
        thread.step()
    assert queue.results == ["first", "second"]
    assert queue.state is State.IDLE


def test_jobs_of_an_owner_that_went_are_dropped_and_nothing_is_said(queue, thread):
    closed, other = object(), object()
    for name, owner in (("a", closed), ("b", closed), ("c", other), ("d", closed), ("e", None)):
        queue.add(name, steps_of(name), queue.results.append, owner=owner)
    thread.step()  # a has begun
    queue.drop(closed)
    assert thread.stopped
    thread.step()  # a has ended, c has begun
    assert not thread.stopped
    for _ in range(6):
        thread.step()
    assert queue.results == ["c", "e"]
    assert queue.said == []
    assert queue.state is State.IDLE


def test_a_job_of_another_owner_goes_on(queue, thread):
    mine, other = object(), object()
    queue.add("a", steps_of("a"), queue.results.append, owner=mine)
    queue.drop(other)
    assert not thread.stopped
    for _ in range(3):
        thread.step()
    assert queue.results == ["a"]
    # It does not count as the owner's any more.
    queue.add("b", steps_of("b"), queue.results.append)
    queue.drop(mine)
    assert not thread.stopped
