"""Names of proteins at the command line."""

from __future__ import annotations

import pytest

from sclinguist_core.cli.predict import protein_names
from sclinguist_core.errors import InputError


def test_names_come_from_the_command_line_or_a_file(tmp_path):
    assert protein_names(None) is None
    assert protein_names("CD3, PD-1,") == ["CD3", "PD-1"]
    path = tmp_path / "names.txt"
    path.write_text("CD3  # T cells\nPD-1, CXCR5\n\n", encoding="utf-8")
    assert protein_names(f"@{path}") == ["CD3", "PD-1", "CXCR5"]


def test_a_file_without_names_is_refused(tmp_path):
    with pytest.raises(InputError, match="none that can be read"):
        protein_names(f"@{tmp_path / 'none.txt'}")
    (tmp_path / "empty.txt").write_text("# nothing\n", encoding="utf-8")
    with pytest.raises(InputError, match="found no names"):
        protein_names(f"@{tmp_path / 'empty.txt'}")
