"""``python -m logit_distributions.workflow.free_gpu COMMAND...`` gives the command its own GPU.

For a machine with several GPUs and no scheduler. Every command started this way gets another
GPU of those in ``CUDA_VISIBLE_DEVICES``, or else of all: the first whose lock is free. The
lock is an open file of the command, so it is free again however the command ends.
"""

from __future__ import annotations

import fcntl
import itertools
import os
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

from logit_distributions.errors import ReproError, exit_code


def take() -> str:
    """Lock a GPU for the life of this process, whatever it executes, and return its name."""
    listed = os.environ.get("CUDA_VISIBLE_DEVICES")
    names: Iterable[str] = listed.split(",") if listed else map(str, itertools.count())
    for name in names:
        lock = Path(tempfile.gettempdir()) / f"repro-{os.getuid()}-gpu-{name}.lock"
        handle = os.open(lock, os.O_CREAT | os.O_RDWR)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            continue
        os.set_inheritable(handle, True)
        return name
    raise ReproError(f"GPUs {listed} are all taken; ask for fewer with --resources gpu=N")


def main() -> int:
    """Become the command, with a GPU of its own."""
    os.environ["CUDA_VISIBLE_DEVICES"] = take()
    os.execvp(sys.argv[1], sys.argv[1:])


if __name__ == "__main__":
    sys.exit(exit_code("logitdist: error", main))
