"""From the names of published scLinguist weights to those of `HyenaTranslator`."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from sclinguist_core.errors import InputError
from sclinguist_core.model.hyena import HyenaTranslator
from sclinguist_core.model.hyena_config import HyenaConfig

# Our name: published name. {side} is encoder or decoder, {i} a block, {k} a layer.
_BLOCK = "{side}.transformer.backbone.layers.{i}"
_FILTER = f"{_BLOCK}.mixer.filter_fn"
_PREFIXES = {
    "{side}.stack.blocks.{i}.operator.in_projection": f"{_BLOCK}.mixer.in_proj",
    "{side}.stack.blocks.{i}.operator.out_projection": f"{_BLOCK}.mixer.out_proj",
    "{side}.stack.blocks.{i}.operator.short": f"{_BLOCK}.mixer.short_filter",
    "{side}.stack.blocks.{i}.operator.long.direct": f"{_FILTER}.bias",
    "{side}.stack.blocks.{i}.operator.long.position_LE": f"{_FILTER}.pos_emb.z",
    "{side}.stack.blocks.{i}.operator.long.time": f"{_FILTER}.pos_emb.t",
    "{side}.stack.blocks.{i}.operator.long.decay": f"{_FILTER}.modulation.deltas",
    # One parameter, which the published code writes down once a layer.
    "{side}.stack.blocks.{i}.operator.long.frequency": f"{_FILTER}.implicit_filter.1.freq",
    "{side}.stack.blocks.{i}.norm": f"{_BLOCK}.norm1",
    "{side}.stack.blocks.{i}.local_norm": f"{_BLOCK}.norm2",
    "{side}.stack.blocks.{i}.up": f"{_BLOCK}.mlp.fc1",
    "{side}.stack.blocks.{i}.down": f"{_BLOCK}.mlp.fc2",
    "{side}.stack.norm": "{side}.transformer.backbone.ln_f",
    "{side}.embed": "{side}.to_vector",
    "{side}.out": "{side}.to_out",
    "bridge.layers.{k}": "translator.fc{k}",
}


def published_key(name: str, config: HyenaConfig) -> str:
    """Translate the name of one of our weights or buffers into the published one.

    Examples
    --------
    >>> published_key("bridge.layers.0.weight", HyenaConfig())
    'translator.fc0.weight'
    """
    layer = re.fullmatch(r"(.+\.long)\.(layers\.(\d+)|out)\.(weight|bias)", name)
    if layer:
        # Linear layers and sines take turns in one sequence.
        place = 2 * (config.filter_depth + 1 if layer[3] is None else int(layer[3]))
        side, _, _, block, *_ = name.split(".")
        return f"{_FILTER.format(side=side, i=block)}.implicit_filter.{place}.{layer[4]}"
    general = re.sub(r"^(encoder|decoder)\.", "{side}.", name)
    general = re.sub(r"blocks\.\d+", "blocks.{i}", general)
    general = re.sub(r"^bridge\.layers\.\d+", "bridge.layers.{k}", general)
    number = re.search(r"\.(\d+)", name)
    values = {"side": name.partition(".")[0], "i": number and number[1], "k": number and number[1]}
    prefix, dot, last = general, "", ""
    if prefix not in _PREFIXES:
        prefix, dot, last = general.rpartition(".")
    return _PREFIXES[prefix].format(**values) + dot + last


def published_config(weights: Mapping[str, Tensor]) -> HyenaConfig:
    """Read the sizes off the shapes of published weights.

    Raises
    ------
    InputError
        If a weight that tells a size is missing.
    """

    def shape(name: str) -> tuple[int, ...]:
        return tuple(weights[published_key(name, HyenaConfig())].shape)

    def count(pattern: str) -> int:
        return sum(re.fullmatch(pattern, name) is not None for name in weights)

    block = "encoder.stack.blocks.0"
    layers = re.escape(_FILTER.format(side="encoder", i=0)) + r"\.implicit_filter\.\d+\.bias"
    try:
        width = shape("encoder.embed.weight")[0]
        return HyenaConfig(
            n_genes=shape(f"{block}.operator.long.position_LE")[1],
            n_proteins=shape("decoder.stack.blocks.0.operator.long.position_LE")[1],
            width=width,
            n_layers=count(r"encoder\.transformer\.backbone\.layers\.\d+\.norm1\.weight"),
            expansion=shape(f"{block}.up.weight")[0] // width,
            short_width=shape(f"{block}.operator.short.weight")[2],
            position_features=shape(f"{block}.operator.long.position_LE")[2],
            filter_width=shape(f"{block}.operator.long.layers.0.weight")[0],
            filter_depth=count(layers) - 1,
            bridge_layers=count(r"translator\.fc\d+\.weight"),
        )
    except (KeyError, IndexError, ValueError) as error:
        raise InputError(
            "weights: expected encoder, translator and decoder of a published scLinguist, found "
            f"none that tell the sizes ({error}); give the checkpoint of its post-pretraining or "
            "fine-tuning."
        ) from error


def load_published(weights: Mapping[str, Tensor]) -> HyenaTranslator:
    """Build a model around published weights, in evaluation mode, float32, on the CPU.

    Parameters
    ----------
    weights
        As `sclinguist_core.model.tensor_archive.read_lightning_state_dict` returns them.

    Raises
    ------
    InputError
        If a weight is missing, foreign or of another shape, or if what the published code derives
        from the sizes (times and decays of the filters) is not what is derived here.
    """
    config = published_config(weights)
    model = HyenaTranslator(config)
    waiting = dict(weights)
    state = {}
    # Parameters come first; time and decay are buffers, to be compared and not to be loaded.
    for name, ours in (*model.named_parameters(), *model.named_buffers()):
        key = published_key(name, config)
        if key not in waiting:
            raise InputError(f"weights: {key!r} is missing, expected it with {ours.numel()} values")
        theirs = waiting.pop(key).float()
        if theirs.numel() != ours.numel() or theirs.squeeze().shape != ours.squeeze().shape:
            raise InputError(
                f"weights: {key!r} has shape {tuple(theirs.shape)}, expected {tuple(ours.shape)}"
            )
        theirs = theirs.reshape(ours.shape)
        if isinstance(ours, torch.nn.Parameter):
            state[name] = theirs
        elif not torch.allclose(theirs.abs(), ours, rtol=1e-4, atol=1e-6):
            raise InputError(f"weights: {key!r} does not follow from the sizes, as published")
        if name.endswith("frequency"):
            for number in range(3, 2 * config.filter_depth + 2, 2):
                twin = waiting.pop(key.replace("filter.1.freq", f"filter.{number}.freq"), None)
                if twin is not None and not torch.equal(twin.reshape(-1).float(), theirs):
                    raise InputError(f"weights: the layers of {key!r} differ in frequency")
    if waiting:
        raise InputError(f"weights: {min(waiting)!r} is no part of the published architecture")
    model.load_state_dict(state, strict=True)
    return model.eval()
