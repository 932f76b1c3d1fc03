"""What is asked of nvidia-smi, and how."""

import shutil
import subprocess

import pytest

from sclinguist_core.accelerator import Card, nvidia_cards


@pytest.mark.parametrize("flag", [None, 0x08000000], ids=["elsewhere", "on Windows"])
def test_no_console_opens_while_cards_are_looked_for(monkeypatch, flag):
    asked = []

    def run(command, **options):
        asked.append((command, options))
        return subprocess.CompletedProcess(command, 0, stdout="RTX, 4090, 560.1, 20000, 24564\n")

    monkeypatch.setattr(shutil, "which", lambda name: f"/bin/{name}")
    monkeypatch.setattr(subprocess, "run", run)
    if flag is None:
        monkeypatch.delattr(subprocess, "CREATE_NO_WINDOW", raising=False)
    else:
        monkeypatch.setattr(subprocess, "CREATE_NO_WINDOW", flag, raising=False)
    assert nvidia_cards() == (Card(name="RTX, 4090", driver="560.1", free=20000, total=24564),)
    ((command, options),) = asked
    assert command[0] == "/bin/nvidia-smi"
    assert options["creationflags"] == (flag or 0)
