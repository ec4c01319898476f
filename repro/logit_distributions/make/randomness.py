"""Randomness by name: every draw is keyed by what it is for, never by what ran before it.

A run that was killed, a different batch size or another order of the samples then cannot
change a draw.
"""

from __future__ import annotations

import hashlib

import torch


def key(*parts: object) -> int:
    """Return a 63-bit integer that depends on all `parts` and on nothing else."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def generator(*parts: object, device: torch.device | str = "cpu") -> torch.Generator:
    """Return a generator on `device`, seeded with ``key(*parts)``."""
    return torch.Generator(device=device).manual_seed(key(*parts))
