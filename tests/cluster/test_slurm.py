"""The miniature through a real Slurm: the same bytes as on one machine, one job killed."""

import pytest

from tests import miniature
from tests.cluster import slurm

for plugin in ("snakemake", "snakemake_executor_plugin_slurm"):
    pytest.importorskip(plugin, reason=f"{plugin} is not installed: pip install '.[cluster]'")


@pytest.mark.slow
@pytest.mark.skipif(
    bool(slurm.missing()),
    reason=f"Slurm is not installed ({', '.join(slurm.missing())}): apt install slurm-wlm munge",
)
def test_a_killed_job_is_submitted_again_and_ends_in_the_same_logits(
    tmp_path, monkeypatch, rehearsal
):
    monkeypatch.setenv("KILL_ONCE", str(tmp_path / "killed"))
    patience = ("--slurm-init-seconds-before-status-checks", "--seconds-between-status-checks")
    with slurm.running():
        done = miniature.snakemake(
            tmp_path, "slurm", "--default-resources", "gpu=0", "--slurm-status-command", "squeue",
            *(word for option in patience for word in (option, "1")),
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "killed").read_text().startswith("cifar10-miniature-")
    assert "Trying to restart job" in done.stderr
    assert miniature.results(tmp_path) == rehearsal
