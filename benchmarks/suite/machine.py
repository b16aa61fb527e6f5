"""What was measured on, without saying whose it is."""

from __future__ import annotations

import os
import platform
import re
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from . import peers


def facts(device: torch.device) -> dict[str, Any]:
    """Processor, memory, system and versions."""
    found: dict[str, Any] = {
        "device": device_name(device),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory (GiB)": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": platform.system(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "multilevel": version("multilevel"),
        "peers": peers.versions(),
    }
    if device.type == "cuda":
        found["device memory (GiB)"] = round(torch.cuda.get_device_properties(device).total_memory / 2**30, 1)
        found["cuda"] = torch.version.cuda
    return found


def device_name(device: torch.device) -> str:
    """The processor's or the GPU's."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else _processor()


def file_name(device: torch.device, large: bool) -> str:
    """``cpu-intel-xeon.json``"""
    words = re.sub(r"[^a-z0-9]+", "-", device_name(device).lower()).strip("-")
    return f"{'gpu' if device.type == 'cuda' else 'cpu'}-{words}{'-large' if large else ''}.json"


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        named = re.search(r"^model name\s*:\s*(.+)$", info.read_text(), re.MULTILINE)
        if named:
            return " ".join(named[1].split())
    return platform.processor() or platform.machine()
