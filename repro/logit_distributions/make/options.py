"""How to run, as opposed to what: nothing here changes what a recipe means."""

from __future__ import annotations

import dataclasses
import time
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

import torch

from logit_distributions.errors import ReproError


class OutOfTime(ReproError):
    """The budget is spent; all that was done is saved, and the same command goes on."""


class Budget:
    """Seconds that may pass from now on: a run stops where it can go on, not where it is killed.

    Parameters
    ----------
    seconds : float, optional
        Default: no limit.
    """

    def __init__(self, seconds: float | None = None) -> None:
        self.seconds = seconds
        self.end = None if seconds is None else time.monotonic() + seconds

    @property
    def spent(self) -> bool:
        """True once the budget is spent."""
        return self.end is not None and time.monotonic() >= self.end

    def check(self, what: str) -> None:
        """Refuse to begin `what` once the budget is spent.

        Raises
        ------
        OutOfTime
        """
        if self.spent:
            raise OutOfTime(
                f"the budget of {self.seconds:,.0f} s is spent; next comes {what}; the same "
                "command goes on there"
            )


@dataclass(frozen=True)
class Machine:
    """Where and how precisely to compute; recorded with every result.

    Attributes
    ----------
    device : str
        A torch device, or ``"auto"``.
    precision : {"auto", "float32", "bfloat16"}
        Of the forward and backward passes in training; ``"auto"`` takes bfloat16 where the
        hardware multiplies it natively. Recorded logits are float32 always.
    graphs : bool
        Whether a GPU replays the training step from a CUDA graph.
    """

    device: str = "auto"
    precision: str = "auto"
    graphs: bool = True

    def resolve(self) -> Machine:
        """Return this machine with both settings decided."""
        device, precision = self.device, self.precision
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        try:
            kind = torch.device(device).type
        except RuntimeError as error:
            raise ReproError(f"unknown device {device!r}: expected cpu, cuda or cuda:N") from error
        if kind == "cuda" and not torch.cuda.is_available():
            raise ReproError(
                "device 'cuda' was asked for, but torch finds no GPU; use --device cpu"
            )
        number = torch.device(device).index
        if kind == "cuda" and number is not None:
            torch.cuda.set_device(number)  # to which streams, events and graphs belong
        if precision == "auto":
            native = torch.cuda.is_bf16_supported() if kind == "cuda" else _cpu_has_bfloat16()
            precision = "bfloat16" if native else "float32"
        return dataclasses.replace(self, device=device, precision=precision)

    @property
    def kind(self) -> str:
        """``"cpu"`` or ``"cuda"``, of a resolved machine."""
        return torch.device(self.device).type

    def autocast(self) -> AbstractContextManager[None]:
        """Return the context in which a forward pass runs."""
        return torch.autocast(
            self.kind,
            dtype=torch.bfloat16,
            enabled=self.precision == "bfloat16",
        )

    def describe(self) -> dict[str, str]:
        """Return device name, precision and threads, for the record."""
        if self.kind == "cuda":
            name = torch.cuda.get_device_name(self.device)
        else:
            name = f"cpu ({torch.backends.cpu.get_cpu_capability()})"
        return {
            "device": name,
            "precision": self.precision,
            "threads": str(torch.get_num_threads()),
            "torch": torch.__version__,
        }


def _cpu_has_bfloat16() -> bool:
    capability = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    return bool(capability())


@dataclass(frozen=True)
class Options:
    """How to make things.

    Attributes
    ----------
    machine : Machine
    images : Path or None
        Local copy of the data set.
    save_every : float
        Seconds between rolling checkpoints.
    budget : Budget
    threads : int or None
        Of the kernels; None: all processors.
    progress : bool
        Whether to show it.
    """

    machine: Machine = field(default_factory=Machine)
    images: Path | None = None
    save_every: float = 60.0
    budget: Budget = field(default_factory=Budget)
    threads: int | None = None
    progress: bool = True
