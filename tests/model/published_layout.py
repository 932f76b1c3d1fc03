"""A checkpoint file laid out as the published scLinguist ones are, made from a network of ours."""

from __future__ import annotations

import sys
import types
from pathlib import Path

import torch

from sclinguist_core.model.hyena import HyenaTranslator
from sclinguist_core.model.hyena_published import published_key

PUBLISHED_AXES = {"position_LE": (0,), "time": (0, -1), "decay": (0, 0), "frequency": (0,)}
"""Axes of length one that the published shapes have and ours do not."""


def published_weights(model: HyenaTranslator) -> dict[str, torch.Tensor]:
    """Weights under published names, in published shapes."""
    weights = {}
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        tensor = tensor.detach().clone()
        last = name.rpartition(".")[2]
        if last == "decay":
            tensor = -tensor  # the published rates are negative
        for axis in PUBLISHED_AXES.get(last, ()):
            tensor = tensor.unsqueeze(axis)
        key = published_key(name, model.config)
        weights[key] = tensor
        if last == "frequency":
            for layer in range(1, model.config.filter_depth + 1):
                weights[key.replace("filter.1.freq", f"filter.{2 * layer + 1}.freq")] = tensor
    return weights


def save_with_foreign_classes(path: Path, weights: dict, **more: object) -> Path:
    """Write ``torch.save`` of a Lightning-like dict that refers to a class nobody has."""
    module = types.ModuleType("model.configuration_hyena")

    class HyenaConfig:
        pass

    HyenaConfig.__module__ = module.__name__
    HyenaConfig.__qualname__ = "HyenaConfig"
    module.HyenaConfig = HyenaConfig
    config = HyenaConfig()
    config.d_model = 16
    parent = types.ModuleType("model")
    parent.configuration_hyena = module
    foreign = {"model": parent, module.__name__: module}
    before = {name: sys.modules.get(name) for name in foreign}
    sys.modules.update(foreign)
    try:
        torch.save(
            {
                "epoch": 1,
                "state_dict": weights,
                "hyper_parameters": {"enc_ret_config": config, "lr": 1e-4},
                **more,
            },
            path,
        )
    finally:
        for name, old in before.items():
            if old is None:
                del sys.modules[name]
            else:
                sys.modules[name] = old
    return path
