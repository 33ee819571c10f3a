"""What the benchmarks share: the machine's name, clock, memory, and best rate of arithmetic."""

import contextlib
import ctypes
import platform
import re
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F

DTYPES = {
    "fp32": torch.float32,
    "tf32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}
Job = Callable[[], object]


def timed(job: Job, device: torch.device) -> float:
    """Seconds of a job on a device that is idle before and after it."""
    synchronize(device)
    started = time.perf_counter()
    job()
    synchronize(device)
    return time.perf_counter() - started


def peak(job: Job, device: torch.device) -> float:
    """The most memory in use during a job (nan: not known).

    Not of a run that is timed: what the allocator kept goes back first, which costs time.
    """
    reset_peak(device)
    job()
    synchronize(device)
    return peak_bytes(device)


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def reset_peak(device: torch.device) -> None:
    """Forget earlier peaks; on the CPU, freed memory that the allocator kept goes back first."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # VmHWM starts anew


def peak_bytes(device: torch.device) -> float:
    """Since `reset_peak`: what tensors took on a CUDA device, or the whole process on the CPU."""
    if device.type == "cuda":
        return float(torch.cuda.max_memory_allocated(device))
    with contextlib.suppress(OSError):
        found = re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())
        if found:
            return 1024.0 * int(found[1])
    return float("nan")


def peak_bytes_of_process() -> float:
    """The most memory that this process ever had, for processes that do one thing."""
    peak = peak_bytes(torch.device("cpu"))
    if peak == peak:
        return peak
    unit = 1 if sys.platform == "darwin" else 1024
    return float(unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


def arithmetic(device: torch.device, precision: str) -> torch.autocast:
    """Sets TF32 (CUDA), off for fp32 and on for the others; gives bf16's and fp16's autocast."""
    torch.backends.cudnn.allow_tf32 = precision != "fp32"
    torch.set_float32_matmul_precision("highest" if precision == "fp32" else "high")
    dtype = DTYPES[precision]
    return torch.autocast(device.type, dtype, enabled=dtype != torch.float32)


def best_rate(device: torch.device, precision: str, small: bool = False) -> tuple[float, str]:
    """FLOP/s of the fastest of large matrix products and 3 × 3 convolutions, and which it was.

    Of both, since libraries differ: MKL's float32 products on an AMD processor reach less than half
    of what oneDNN's convolutions do. The best of several warm runs, since this is a ceiling.
    """
    size, batch = (8192, 64) if device.type == "cuda" else (2048, 8)
    channels, pixels = 256, 48
    if small:
        size, batch, channels = 256, 1, 32
    dtype = DTYPES[precision]
    with arithmetic(device, precision), torch.inference_mode():
        a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
        x = torch.randn(batch, channels, pixels, pixels, device=device, dtype=dtype)
        weight = torch.randn(channels, channels, 3, 3, device=device, dtype=dtype)
        last = x.to(memory_format=torch.channels_last)
        convolution = 2.0 * batch * channels**2 * 9 * pixels**2
        candidates: list[tuple[str, float, Job]] = [
            (f"matrix product of {size}", 2.0 * size**3, lambda: torch.mm(a, b)),
            ("convolution", convolution, lambda: F.conv2d(x, weight, padding=1)),
            ("convolution, channels last", convolution, lambda: F.conv2d(last, weight, padding=1)),
        ]
        rates = [
            (flop / min(timed(job, device) for _ in range(10)), name)
            for name, flop, job in candidates
        ]
    return max(rates)


def hardware(device: torch.device) -> str:
    """The device's name; on the CPU with the number of threads that PyTorch uses."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    count = torch.get_num_threads()
    name = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        found = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
        name = found[1].strip() if found else name
    return f"{name}, {count} thread{'s' if count > 1 else ''}"


def file_name(text: str) -> str:
    """A hardware's name as a file's: lower case, hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
