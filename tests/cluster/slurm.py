"""``python -m tests.cluster.slurm COMMAND...``: the command, beside a real Slurm of one node.

Controller, node and their authentication run on this machine as the user that calls, with
everything they write in a temporary folder, and end with the command.
"""

from __future__ import annotations

import getpass
import os
import platform
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

DAEMONS = ("munged", "slurmctld", "slurmd")
CLIENTS = ("sbatch", "srun", "squeue", "sinfo", "scontrol", "scancel")
SEARCHED = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"])

# No control groups, no accounting: what a container and a machine without a database allow.
CONFIGURATION = """\
ClusterName=one
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
ReturnToService=2
SchedulerParameters=batch_sched_delay=0,sched_interval=1
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory={megabytes} State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def missing() -> list[str]:
    """Return the programs of Slurm and munge that are not installed."""
    return [name for name in (*DAEMONS, *CLIENTS) if shutil.which(name, path=SEARCHED) is None]


@contextmanager
def running() -> Iterator[None]:
    """Start Slurm, put clients that find it first in ``PATH``, and stop it at the end.

    ``SLURM_CONF`` would not do: Snakemake's plugin keeps it from the steps of a job.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="slurm-")))
        folder.chmod(0o755)
        (folder / "state").mkdir()
        (folder / "spool").mkdir()
        key = folder / "munge.key"
        key.touch(mode=0o600)
        key.write_bytes(os.urandom(128))
        configuration = folder / "slurm.conf"
        configuration.write_text(
            CONFIGURATION.format(
                folder=folder,
                host=platform.node().partition(".")[0],
                user=getpass.getuser(),
                ports=_free_ports(2),
                cpus=len(os.sched_getaffinity(0)),
                megabytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20,
            )
        )
        files = {name: folder / f"munge.{name}" for name in ("socket", "pid", "log", "seed")}
        _start(
            stack, "munged", "--foreground", "--force", f"--key-file={key}",
            f"--socket={files['socket']}", f"--pid-file={files['pid']}",
            f"--log-file={files['log']}", f"--seed-file={files['seed']}",
        )  # fmt: skip
        _wait("munged", files["socket"].exists)
        _write_clients(folder / "bin", configuration)
        before = os.environ["PATH"]
        stack.callback(os.environ.update, PATH=before)
        os.environ["PATH"] = f"{folder / 'bin'}{os.pathsep}{before}"
        for name in ("slurmctld", "slurmd"):
            _start(stack, name, "-D", "-f", str(configuration))
        _wait("the node", _is_idle)
        yield


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def _start(stack: ExitStack, name: str, *arguments: str) -> None:
    program = shutil.which(name, path=SEARCHED)
    assert program is not None
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen([program, *arguments], **quiet)
    stack.callback(process.wait)
    stack.callback(process.terminate)


def _write_clients(folder: Path, configuration: Path) -> None:
    folder.mkdir()
    for name in CLIENTS:
        client = folder / name
        installed = shutil.which(name, path=SEARCHED)
        client.write_text(f'#!/bin/sh\nSLURM_CONF={configuration} exec {installed} "$@"\n')
        client.chmod(0o755)


def _is_idle() -> bool:
    answered = subprocess.run(["sinfo", "-h", "-o", "%T"], capture_output=True, text=True)
    return answered.stdout.strip() == "idle"


def _wait(what: str, is_there, seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not is_there():
        if time.monotonic() > end:
            raise RuntimeError(f"{what} did not come up within {seconds:.0f} s")
        time.sleep(0.1)


def main() -> int:
    """Run the command; exit code as its own."""
    if absent := missing():
        print(f"not installed: {', '.join(absent)}", file=sys.stderr)
        return 1
    with running():
        return subprocess.run(sys.argv[1:]).returncode


if __name__ == "__main__":
    sys.exit(main())
