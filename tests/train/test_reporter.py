from pathlib import Path

import pytest

from sclinguist_core.train.fit import FitConfig, Step
from sclinguist_core.train.reporter import Reporter

FIT = FitConfig(steps=2_000, batch_size=100, sets_per_step=4)


def step(done, score=None):
    return Step(
        done=done, total=2_000, error=0.25, loss=0.3, learning_rate=1e-3, cells_per_second=1234.5,
        score=score,
    )  # fmt: skip


def test_a_log_file_gets_a_line_now_and_then(capsys):
    reporter = Reporter("post-pretrain", FIT, seconds=0)
    with reporter.shown() as show:
        show(step(10))
        show(step(1_000, score=0.5))
        show(step(1_010))
    assert capsys.readouterr().err.splitlines() == [
        "post-pretrain: step 10/2,000, error 0.250, 1,234 cells/s",
        "post-pretrain: step 1,000/2,000, error 0.250, held-out 0.500, 1,234 cells/s",
        "post-pretrain: step 1,010/2,000, error 0.250, held-out 0.500, 1,234 cells/s",
    ]
    slow = Reporter("post-pretrain", FIT, seconds=3600)
    with slow.shown() as show:
        for done in range(10, 100, 10):
            show(step(done))
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_terminal_gets_a_bar(capsys, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    with Reporter("post-pretrain", FIT).shown() as show:
        show(step(1_000))
    err = capsys.readouterr().err
    assert "error 0.250" in err
    assert "400000/800000" in err


@pytest.mark.parametrize(
    ("reports", "sentence"),
    [
        ([], "pretrain-rna: the run in run was finished already."),
        (
            [step(2_000)],
            "pretrain-rna: 2,000 steps, 800,000 cells, error 0.250; everything about the run is in "
            "run",
        ),
        (
            [step(1_000, score=0.5)],
            "pretrain-rna: 1,000 steps of 2,000 (held-out sets no longer gain), 400,000 cells, "
            "error 0.250, held-out 0.500; everything about the run is in run",
        ),
    ],
)
def test_the_last_line_says_how_it_ended(reports, sentence):
    reporter = Reporter("pretrain-rna", FIT)
    with reporter.shown() as show:
        for report in reports:
            show(report)
    assert reporter.summary(Path("run")) == sentence
