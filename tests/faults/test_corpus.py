"""Every damaged input gives one sentence and leaves nothing; every odd one is dealt with.

Of kinds of more than four cases every twelfth of the others is run here, to be quick;
``training/benchmarks/faults.py`` runs them all.
"""

from __future__ import annotations

import sys
from itertools import groupby
from operator import attrgetter

import pytest

from faults.corpus import CORPUS
from faults.fault import Fault, execute, prepare, problems
from faults.small import Small

_WHOLE, _STEP = 4, 12


def _some() -> list[Fault]:
    kind = attrgetter("kind")
    kinds = [list(cases) for _, cases in groupby(sorted(CORPUS, key=kind), key=kind)]
    return [
        fault
        for cases in kinds
        for fault in cases[:_WHOLE] + cases[_WHOLE::_STEP]
        if sys.platform in fault.systems
    ]


@pytest.fixture(scope="session")
def small(tmp_path_factory) -> Small:
    return Small(tmp_path_factory.mktemp("small"))


@pytest.mark.parametrize("fault", _some(), ids=lambda fault: fault.label)
def test_fault(fault, tmp_path, small):
    given = prepare(fault, tmp_path, small)
    assert problems(fault, execute(fault, given, tmp_path, small)) == []


def test_names_are_distinct():
    labels = [fault.label for fault in CORPUS]
    assert len(set(labels)) == len(labels)
