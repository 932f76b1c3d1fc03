"""FSDP: weights, gradients and optimiser state spread over the devices (``strategy: fsdp``).

Lightning's own strategy for this (FSDP2 under ``ModelParallelStrategy``) reads and writes pickles.
This one gathers the whole state and leaves the file to our plugin, so that a run can be saved on
eight devices and continued on one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pytorch_lightning.core.optimizer import LightningOptimizer
from pytorch_lightning.strategies import ModelParallelStrategy
from torch import Tensor
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.optim import Optimizer

if TYPE_CHECKING:
    from sclinguist_core.train.objectives import Objective


class ShardedStrategy(ModelParallelStrategy):
    """Fully sharded data parallel over all devices.

    Parameters
    ----------
    n_processes
        Devices of all nodes.
    """

    def __init__(self, n_processes: int) -> None:
        super().__init__(
            data_parallel_size=n_processes,
            tensor_parallel_size=1,
            save_distributed_checkpoint=False,
        )

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """Gather the optimiser's state on the first process, laid out as that of one device."""
        inner = optimizer._optimizer if isinstance(optimizer, LightningOptimizer) else optimizer
        assert self.model is not None
        whole_state = StateDictOptions(full_state_dict=True, cpu_offload=True)
        state: Any = get_optimizer_state_dict(self.model, inner, options=whole_state)
        if self.global_rank != 0:
            return {}
        number = {name: i for i, name in enumerate(self._trained())}
        return {
            "state": {number[name]: values for name, values in state["state"].items()},
            "param_groups": [
                {**group, "params": [number[name] for name in group["params"]]}
                for group in state["param_groups"]
            ],
        }

    def _trained(self) -> list[str]:
        """Names of the parameters, in the order in which an optimiser numbers them."""
        assert self.model is not None
        return [name for name, p in self.model.named_parameters() if p.requires_grad]

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> Any:
        """Read the file on every process; each keeps its part."""
        return self.checkpoint_io.load_checkpoint(self.broadcast(checkpoint_path))

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        """Keep this process's part of the weights."""
        assert self.model is not None
        set_model_state_dict(
            self.model,
            checkpoint["state_dict"],
            options=StateDictOptions(full_state_dict=True, strict=strict),
        )

    @property
    def lightning_restore_optimizer(self) -> bool:
        """Whether Lightning hands the optimiser's state to `load_optimizer_state_dict`."""
        return True

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Keep this process's part of the optimiser's state."""
        assert self.model is not None
        names = self._trained()
        for optimizer, state in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            by_name: Any = {
                "state": {names[i]: values for i, values in state["state"].items()},
                "param_groups": [
                    {**group, "params": [names[i] for i in group["params"]]}
                    for group in state["param_groups"]
                ],
            }
            set_optimizer_state_dict(
                self.model, optimizer, by_name, options=StateDictOptions(full_state_dict=True)
            )


def shard(objective: Objective, mesh: Any) -> None:
    """Spread an objective's parameters over a device mesh, in place."""
    from torch.distributed.fsdp import fully_shard

    # Layer by layer, so that a device need not hold all of them at once.
    for layer in getattr(objective.model, "layers", ()):
        fully_shard(layer, mesh=mesh)
    fully_shard(objective, mesh=mesh)


def whole(value: Tensor) -> Tensor:
    """Gather a tensor that may be spread over processes; all of them must ask."""
    from torch.distributed.tensor import DTensor

    return value.full_tensor() if isinstance(value, DTensor) else value


def share_of(value: Tensor, like: Tensor) -> Tensor:
    """Take this process's part of a whole tensor, if `like` is spread over processes."""
    from torch.distributed.tensor import DTensor, distribute_tensor

    if isinstance(value, DTensor) or not isinstance(like, DTensor):
        return value.to(like.device)
    return distribute_tensor(value.to(like.device), like.device_mesh, like.placements)
