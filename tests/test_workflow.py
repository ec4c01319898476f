"""Plans through Snakemake: each job once, on real images, killed and called again."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from logit_distributions import plans
from logit_distributions.jobs import Job, with_needs
from logit_distributions.recipes import SCALES, recipe
from logit_distributions.store import places
from tests import miniature, warm

WORKFLOW = places.ROOT / "repro" / "logit_distributions" / "workflow"
pytest.importorskip("snakemake", reason="Snakemake is not installed: pip install '.[cluster]'")


def called(tmp_path: Path, profile: str, *arguments: str) -> subprocess.CompletedProcess:
    """Let the workflow say what it would do."""
    return warm.run(
        "snakemake", "--dry-run", "--printshellcmds", "--directory", str(tmp_path), "--snakefile",
        str(WORKFLOW / "Snakefile"), "--profile", str(WORKFLOW / "profiles" / profile), *arguments,
        env=os.environ,
    )  # fmt: skip


def dry_run(tmp_path: Path, profile: str, *arguments: str) -> list[str]:
    """Return the commands that the workflow would call."""
    done = called(tmp_path, profile, *arguments)
    assert done.returncode == 0, done.stderr
    return re.findall(r"^Shell command: (.* make .*\S)", done.stdout + done.stderr, flags=re.M)


def test_a_dry_run_lists_everything_in_the_paper_once(tmp_path):
    commands = dry_run(tmp_path, "gpus", "--config", f"data={tmp_path}")
    jobs = with_needs(plans.plan([plans.PAPER], SCALES["paper"]))
    expected = [
        f"make {job.words} --scale paper --dataset {job.recipe.dataset} "
        f"--seed {job.seed} --device cuda --threads 1"
        for job in jobs
    ]
    assert sorted(each.partition("-m logit_distributions ")[2] for each in commands) == sorted(
        expected
    )
    assert all("logit_distributions.workflow.free_gpu" in command for command in commands)
    assert len({job.run for job in jobs if job.kind == "train"}) == 129


def test_what_is_stored_is_not_made_again(tmp_path, monkeypatch):
    monkeypatch.setenv("REPRO_DATA", str(places.ROOT / "data"))
    assert dry_run(tmp_path, "local", "--config", "plan=table2", "seeds=0 1") == []


def test_what_is_stored_is_not_made_again_for_the_sake_of_others(tmp_path):
    """A student is wanted whose teacher's logits are there, but not what it was trained by."""
    stored = tmp_path / "data" / "logits" / "cifar10-small-at-seed0.nc"
    stored.parent.mkdir(parents=True)
    stored.touch()
    settings = ("--config", "plan=at normal", "seeds=0", f"data={tmp_path / 'data'}")
    commands = dry_run(tmp_path, "local", *settings)
    made = {re.search(r"make (\S+)", command)[1] for command in commands}
    normal = Job("logits", recipe("normal"), 0)
    assert made == {"log/at", "log/normal", *(job.words for job in with_needs([normal]))}


@pytest.mark.parametrize(
    ("setting", "problem"),
    [
        ("plan=table2 dataset=nosuch", "unknown data set 'nosuch'"),
        ("plan=nosuch", "unknown recipe 'nosuch'"),
        ("scale=nosuch", "unknown scale 'nosuch'"),
        ("seeds=one", "seeds: expected whole numbers from 0, got 'one'"),
        ("data=/tmp/{x}", "data: expected a path without braces, got /tmp/{x}"),
        ("images=/tmp/{x}", "images: expected a path without braces"),
        ("speed=/nowhere.json", "/nowhere.json: expected what 'logitdist bench --json FILE'"),
    ],
)
def test_a_wrong_setting_is_one_line(setting, problem, tmp_path):
    done = called(tmp_path, "local", "--config", *setting.split())
    assert done.returncode == 1
    about, line = done.stderr.splitlines()
    assert about.startswith("Using profile")
    assert line.startswith(f"logitdist: error: {problem}")


@pytest.mark.slow
def test_a_killed_job_is_called_again_and_ends_in_the_same_logits(tmp_path, monkeypatch):
    """One network, as every job takes seconds to begin; students have their jobs in a dry run."""
    one = ["st"]
    miniature.run_alone(tmp_path / "alone", one)
    monkeypatch.setenv("KILL_ONCE", str(tmp_path / "killed"))
    done = miniature.snakemake(tmp_path, "local", "--cores", "2", networks=one)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "killed").read_text().startswith("cifar10-miniature-")
    assert "Trying to restart job" in done.stderr
    assert miniature.results(tmp_path, one) == miniature.results(tmp_path / "alone", one)


def test_on_a_cluster_the_scheduler_chooses_the_gpu(tmp_path):
    as_on_a_node = ("--mode", "remote", "--default-resources", "gpu=1")
    settings = ("--config", "plan=st", "seeds=0", f"data={tmp_path}")
    commands = dry_run(tmp_path, "gpus", *as_on_a_node, *settings)
    assert len(commands) == 4  # train, checkpoint, log, logits
    assert all("--device cuda" in command for command in commands)
    assert not any("free_gpu" in command for command in commands)


def test_each_command_gets_a_gpu_to_itself(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    wait = f"echo $CUDA_VISIBLE_DEVICES; until [ -e {tmp_path / 'go'} ]; do sleep 0.01; done"
    command = [sys.executable, "-m", "logit_distributions.workflow.free_gpu", "sh", "-c"]

    def start(script: str) -> subprocess.Popen:
        return subprocess.Popen(
            [*command, script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            cwd=places.ROOT,
        )  # fmt: skip

    one, two = start(wait), start(wait)
    assert {one.stdout.readline(), two.stdout.readline()} == {"4\n", "7\n"}
    _, error = start("true").communicate()
    assert "GPUs 4,7 are all taken" in error
    (tmp_path / "go").touch()
    for process in (one, two):
        process.communicate()
    printed, _ = start("echo $CUDA_VISIBLE_DEVICES").communicate()
    assert printed == "4\n"
