import os
import signal

import pytest

from sclinguist_core.train.signals import StopRequest, requeue_under_slurm


@pytest.fixture
def stop():
    request = StopRequest()
    request.install()
    yield request
    request.remove()


def test_a_signal_is_remembered_and_nothing_else_happens(stop):
    for signum in (signal.SIGTERM, signal.SIGUSR1):
        os.kill(os.getpid(), signum)
        assert stop.signum == signum


def test_the_second_interrupt_stops_at_once(stop):
    os.kill(os.getpid(), signal.SIGINT)
    assert stop.signum == signal.SIGINT
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)


def test_signals_go_back_to_who_had_them():
    before = [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)]
    request = StopRequest()
    request.install()
    assert signal.getsignal(signal.SIGTERM) == request._receive
    request.remove()
    after = [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)]
    assert after == before


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """A scontrol that writes down what it was asked, and fails where a file says so."""
    program = tmp_path / "scontrol"
    program.write_text(
        f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\n'
        f'if [ -e {tmp_path}/refuse ]; then echo "job is not requeueable" >&2; exit 1; fi\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    for name in ("SLURM_JOB_ID", "SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def test_outside_of_slurm_nothing_is_asked(slurm):
    assert not requeue_under_slurm()
    assert not (slurm / "asked").exists()


def test_a_job_asks_for_itself(slurm, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "123")
    assert requeue_under_slurm()
    assert (slurm / "asked").read_text() == "requeue 123\n"


def test_an_array_asks_for_its_task_alone(slurm, monkeypatch):
    for name, value in (("JOB_ID", "125"), ("ARRAY_JOB_ID", "123"), ("ARRAY_TASK_ID", "2")):
        monkeypatch.setenv(f"SLURM_{name}", value)
    assert requeue_under_slurm()
    assert (slurm / "asked").read_text() == "requeue 123_2\n"


def test_a_refusal_is_told(slurm, monkeypatch, caplog):
    (slurm / "refuse").touch()
    monkeypatch.setenv("SLURM_JOB_ID", "123")
    assert not requeue_under_slurm()
    assert "scontrol requeue 123: job is not requeueable" in caplog.text
