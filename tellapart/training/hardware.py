"""Device, precision and threads of a training, decided before the first step.

The rule is a pure function of (capability of the device, flags), so that a resumed run decides the
same.
"""

from __future__ import annotations

import contextlib
import os
import platform
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch

from ..errors import ConfigError
from ..runtime import distributed
from ..runtime.allocator import keep_freed_memory
from ..runtime.threads import free
from .config import CommonConfig


@dataclass(frozen=True)
class Machine:
    """What a training runs on.

    Attributes:
        device: "cpu" or "cuda:N".
        precision: "float32" or "bfloat16".
        threads: threads of the processor.
    """

    device: str
    precision: str
    threads: int

    @property
    def torch_device(self) -> torch.device:
        return torch.device(self.device)

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """Threads and deterministic algorithms as decided, inside; as they were, after."""
        threads, strict = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
        memory: Any = torch.utils.deterministic
        fill = memory.fill_uninitialized_memory
        torch.set_num_threads(self.threads)
        torch.use_deterministic_algorithms(self.device == "cpu")
        memory.fill_uninitialized_memory = (
            False  # a quarter of a step, and nothing here reads such memory
        )
        keep_freed_memory()
        try:
            yield
        finally:
            torch.set_num_threads(threads)
            torch.use_deterministic_algorithms(strict)
            memory.fill_uninitialized_memory = fill

    def autocast(self) -> torch.autocast:
        """bfloat16 for the network where decided, else nothing."""
        return torch.autocast(
            self.torch_device.type, dtype=torch.bfloat16, enabled=self.precision == "bfloat16"
        )


def decide(config: CommonConfig, threads: int | None = None) -> Machine:
    """The machine of a configuration.

    Args:
        config: its settings; where it leaves threads open, as many are taken as are free.
        threads: those of a run that is continued, whose bits depend on them.

    Raises:
        ConfigError: a device that is not there.
    """
    device = config.device
    if device == "auto":
        device = distributed.local_device() or ("cuda:0" if torch.cuda.is_available() else "cpu")
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(
            f"--device {config.device} cannot be used: {str(error).splitlines()[0]}"
        ) from error
    precision = config.precision
    if precision == "auto":
        precision = "bfloat16" if computes_bfloat16(torch.device(device)) else "float32"
    count = config.threads or threads or free(torch.get_num_threads())
    return Machine(device, precision, count)


def peak_memory(device: torch.device) -> int:
    """Most bytes in use so far: of the accelerator, or of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ImportError:  # not on Windows
        return 0
    unit = 1 if platform.system() == "Darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def computes_bfloat16(device: torch.device) -> bool:
    """Whether the processor has bfloat16 arithmetic, not only a conversion."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device.type == "cpu" and _cpu_flag("avx512_bf16", "amx_bf16", "bf16")


def hardware(machine: Machine) -> dict[str, Any]:
    """The machine and its hardware, for run.json."""
    name = (
        torch.cuda.get_device_name(machine.torch_device)
        if machine.torch_device.type == "cuda"
        else processor()
    )
    return asdict(machine) | {
        "name": name,
        "cores": os.cpu_count(),
        "platform": platform.platform(),
    }


def _cpu_flag(*flags: str) -> bool:
    try:
        with open("/proc/cpuinfo") as file:
            words = next(
                (line for line in file if line.lower().startswith(("flags", "features"))), ""
            ).split()
    except OSError:
        return False
    return any(f in words for f in flags)


def processor() -> str:
    """The name of this machine's processor."""
    try:
        with open("/proc/cpuinfo") as file:
            return next(
                line.partition(":")[2].strip() for line in file if line.startswith("model name")
            )
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
