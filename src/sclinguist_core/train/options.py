"""How training runs: devices, precision, how often to report, validate and save."""

from __future__ import annotations

from dataclasses import dataclass

STRATEGIES = ("auto", "ddp", "fsdp")
PRECISIONS = ("32", "bf16-mixed")
ACCELERATORS = ("auto", "cpu", "cuda")


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainerConfig:
    """The ``trainer`` section of a recipe: how a run is done.

    But for `gradient_clip` (and `patience` and `keep`, which say when to stop and what to keep)
    nothing here changes what is learned, up to rounding.

    Attributes
    ----------
    accelerator
        ``auto``, ``cpu`` or ``cuda``.
    devices
        How many, on each node; or which, as a list of numbers.
    nodes
        Machines.
    strategy
        ``auto`` (one process, or DDP where there are several devices), ``ddp`` or ``fsdp``
        (weights and optimiser sharded over the devices).
    precision
        ``32`` or ``bf16-mixed``.
    compile
        Whether to compile the network (``torch.compile``).
    accumulate
        Passes into which a process splits its chunks of a step: more passes need less memory.
    gradient_clip
        Largest norm of the gradient; 0 for no limit.
    workers
        Processes that draw and augment ahead; 0 draws between steps.
    log_every, validate_every, save_every
        Steps between reports, validations and saved states.
    patience
        Validations without a better held-out score after which training stops; 0 for never.
    keep
        Weights of the final model: ``best`` by held-out score (the last where nothing is held
        out), or ``last``.
    """

    accelerator: str = "auto"
    devices: int | tuple[int, ...] = 1
    nodes: int = 1
    strategy: str = "auto"
    precision: str = "32"
    compile: bool = False
    accumulate: int = 1
    gradient_clip: float = 1.0
    workers: int = 0
    log_every: int = 10
    validate_every: int = 200
    save_every: int = 200
    patience: int = 0
    keep: str = "best"

    def __post_init__(self) -> None:
        for name, allowed in (
            ("accelerator", ACCELERATORS),
            ("strategy", STRATEGIES),
            ("precision", PRECISIONS),
            ("keep", ("best", "last")),
        ):
            # YAML reads a bare 32 as a number.
            if str(getattr(self, name)) not in allowed:
                raise ValueError(
                    f"{name}: expected {' or '.join(allowed)}, found {getattr(self, name)!r}"
                )
        object.__setattr__(self, "precision", str(self.precision))
        for name in ("nodes", "accumulate", "log_every", "validate_every", "save_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected at least 1, found {getattr(self, name)}")
        for name in ("gradient_clip", "workers", "patience"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}: expected at least 0, found {getattr(self, name)}")
        numbers = self.devices if isinstance(self.devices, tuple) else (self.devices,)
        if not numbers or any(type(number) is not int for number in numbers):
            raise ValueError(
                f"devices: expected a number of devices or a list of them, found {self.devices!r}"
            )
        if isinstance(self.devices, int) and self.devices < 1:
            raise ValueError(f"devices: expected at least 1, found {self.devices}")
