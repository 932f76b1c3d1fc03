"""From the names of published scLinguist weights to those of `HyenaTranslator`."""

from __future__ import annotations

import re
from collections.abc import Generator, Mapping

import torch
from torch import Tensor

from sclinguist_core.errors import InputError
from sclinguist_core.model.hyena import HyenaTranslator
from sclinguist_core.model.hyena_config import PARTS, HyenaConfig

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

_PUBLISHED_PARTS = {"encoder": "encoder", "bridge": "translator", "decoder": "decoder"}
_PUBLISHED_PREFIXES = tuple(f"{part}." for part in _PUBLISHED_PARTS.values())
_SEQUENCES = {"encoder": "genes", "decoder": "proteins"}
_IDLE = re.compile(r"(encoder|decoder)\.to_vector_tech\.(weight|bias)")
"""Weights of a technology token, which some published checkpoints carry and no graph uses."""


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


def published_config(weights: Mapping[str, Tensor], parts: tuple[str, ...] = PARTS) -> HyenaConfig:
    """Read the sizes off the shapes of published weights.

    Parameters
    ----------
    weights
        By published name.
    parts
        Parts of the network that are wanted, of `PARTS`.

    Raises
    ------
    InputError
        If a weight that tells a size is missing.
    """

    def shape(name: str) -> tuple[int, ...]:
        return tuple(weights[published_key(name, HyenaConfig())].shape)

    def count(pattern: str) -> int:
        return sum(re.fullmatch(pattern, name) is not None for name in weights)

    sides = [part for part in parts if part != "bridge"]
    try:
        side = sides[0]
        block = f"{side}.stack.blocks.0"
        layers = re.escape(_FILTER.format(side=side, i=0)) + r"\.implicit_filter\.\d+\.bias"
        width = shape(f"{side}.embed.weight")[0]
        sizes = {
            f"n_{_SEQUENCES[side]}": shape(f"{side}.stack.blocks.0.operator.long.position_LE")[1]
            for side in sides
        }
        if "bridge" in parts:
            sizes["bridge_layers"] = count(r"translator\.fc\d+\.weight")
        sizes |= {
            "width": width,
            "n_layers": count(rf"{side}\.transformer\.backbone\.layers\.\d+\.norm1\.weight"),
            "expansion": shape(f"{block}.up.weight")[0] // width,
            "short_width": shape(f"{block}.operator.short.weight")[2],
            "position_features": shape(f"{block}.operator.long.position_LE")[2],
            "filter_width": shape(f"{block}.operator.long.layers.0.weight")[0],
            "filter_depth": count(layers) - 1,
        }
        return HyenaConfig(**sizes, parts=parts)  # type: ignore[arg-type]
    except (KeyError, IndexError, ValueError) as error:
        raise InputError(
            f"weights: expected {', '.join(parts)} of a published scLinguist, found none that tell "
            f"the sizes ({error}); give a checkpoint of its pretraining, post-pretraining or "
            "fine-tuning."
        ) from error


def load_published(
    weights: Mapping[str, Tensor], parts: tuple[str, ...] = PARTS
) -> HyenaTranslator:
    """Build a model around published weights; see `load_published_iter`."""
    steps = load_published_iter(weights, parts)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


def load_published_iter(
    weights: Mapping[str, Tensor], parts: tuple[str, ...] = PARTS
) -> Generator[int, None, HyenaTranslator]:
    """Build a model around published weights, in evaluation mode, float32, on the CPU.

    A weight is looked up once and becomes the model's own, so that a mapping that reads from a file
    needs no memory for a second copy.

    Parameters
    ----------
    weights
        As `sclinguist_core.model.tensor_archive.read_lightning_state_dict` returns them.
    parts
        Parts of the network to build, of `PARTS`; weights of others are left aside.

    Yields
    ------
    Numbers taken over so far.

    Raises
    ------
    InputError
        If a weight is missing, foreign, not finite or of another shape, or if what the published
        code derives from the sizes (times and decays of the filters) is not what is derived here.
    """
    config = published_config(weights, parts)
    with torch.device("meta"):
        model = HyenaTranslator(config)
    prefixes = tuple(f"{_PUBLISHED_PARTS[part]}." for part in parts)
    waiting = {key for key in weights if key.startswith(prefixes) and not _IDLE.fullmatch(key)}
    if parts == PARTS:
        waiting |= {key for key in weights if not key.startswith(_PUBLISHED_PREFIXES)}
    state = {}
    done = 0
    # Parameters come first; time and decay are buffers, to be compared and not to be loaded.
    for name, ours in (*model.named_parameters(), *model.named_buffers()):
        key = published_key(name, config)
        if key not in waiting:
            raise InputError(f"weights: {key!r} is missing, expected it with {ours.numel()} values")
        waiting.remove(key)
        theirs = weights[key].float()
        if theirs.numel() != ours.numel() or theirs.squeeze().shape != ours.squeeze().shape:
            raise InputError(
                f"weights: {key!r} has shape {tuple(theirs.shape)}, expected {tuple(ours.shape)}"
            )
        theirs = theirs.reshape(ours.shape)
        if isinstance(ours, torch.nn.Parameter):
            # NaN is the least and the largest of everything; no memory for one answer a value.
            if not all(extreme.isfinite() for extreme in theirs.aminmax()):
                raise InputError(f"weights: {key!r} holds values that are not finite")
            state[name] = theirs
        elif not torch.allclose(theirs.abs(), ours, rtol=1e-4, atol=1e-6):
            raise InputError(f"weights: {key!r} does not follow from the sizes, as published")
        if name.endswith("frequency"):
            for number in range(3, 2 * config.filter_depth + 2, 2):
                twin = key.replace("filter.1.freq", f"filter.{number}.freq")
                if twin in waiting:
                    waiting.remove(twin)
                    if not torch.equal(weights[twin].reshape(-1).float(), theirs):
                        raise InputError(f"weights: the layers of {key!r} differ in frequency")
        done += theirs.numel()
        yield done
    if waiting:
        raise InputError(f"weights: {min(waiting)!r} is no part of the published architecture")
    model.load_state_dict(state, strict=True, assign=True)
    return model.eval()
