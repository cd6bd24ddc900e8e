"""Device, precision and threads of a training, decided before the first step.

The rule is a pure function of the device and the flags, so that a resumed run decides the same.
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
    """Device, precision and threads of a training.

    Attributes:
        device: "cpu" or "cuda:N".
        precision: "float32" or "bfloat16".
        threads: CPU threads.
    """

    device: str
    precision: str
    threads: int

    @property
    def torch_device(self) -> torch.device:
        return torch.device(self.device)

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """Apply threads and deterministic algorithms inside the block, and restore them after."""
        threads, strict = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
        memory: Any = torch.utils.deterministic
        fill = memory.fill_uninitialized_memory
        torch.set_num_threads(self.threads)
        torch.use_deterministic_algorithms(self.device == "cpu")
        # filling takes a quarter of a step, and no code here reads uninitialised memory
        memory.fill_uninitialized_memory = False
        keep_freed_memory()
        try:
            yield
        finally:
            torch.set_num_threads(threads)
            torch.use_deterministic_algorithms(strict)
            memory.fill_uninitialized_memory = fill

    def autocast(self) -> torch.autocast:
        """Return the autocast context of the network, disabled for float32."""
        return torch.autocast(
            self.torch_device.type, dtype=torch.bfloat16, enabled=self.precision == "bfloat16"
        )


def decide(config: CommonConfig, threads: int | None = None) -> Machine:
    """Return device, precision and threads of a configuration.

    Args:
        config: the settings; if they do not fix the threads, as many are used as are free.
        threads: those of a resumed run, because the last bits of results depend on them.

    Raises:
        ConfigError: the device is not available.
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
    """Return the peak memory in bytes, of the GPU or of this process.

    Args:
        device: the device.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ImportError:  # not on Windows
        return 0
    unit = 1 if platform.system() == "Darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def computes_bfloat16(device: torch.device) -> bool:
    """Return whether the device has bfloat16 arithmetic, not only conversion.

    Args:
        device: the device.
    """
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device.type == "cpu" and _cpu_flag("avx512_bf16", "amx_bf16", "bf16")


def hardware(machine: Machine) -> dict[str, Any]:
    """Return the device and its hardware, for run.json.

    Args:
        machine: device, precision and threads.
    """
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
    """Return the name of the CPU."""
    try:
        with open("/proc/cpuinfo") as file:
            return next(
                line.partition(":")[2].strip() for line in file if line.startswith("model name")
            )
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
