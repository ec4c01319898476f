"""One guard for every entry point: whatever fails is one line, and nothing is half-written."""

from __future__ import annotations

import contextlib
import io
import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from logit_distributions import bench, errors, images, store
from logit_distributions.errors import ReproError
from logit_distributions.make import trust
from logit_distributions.make.checkpoint import Checkpoint
from logit_distributions.make.network import ResNet18
from logit_distributions.store import files, places
from paper import release, report, style, tables
from paper.appendix_c import page
from tests import toy
from tests.test_store import dataset

STORED = places.ROOT / "data"


def raising(error: BaseException) -> Callable[[], int]:
    def command() -> int:
        raise error

    return command


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ReproError("expected this,\ngot that"), "x: error: expected this, got that"),
        (FileNotFoundError(2, "No such file", "a.nc"), "x: error: a.nc: No such file"),
        (OSError(18, "Cross-device link", "a", None, "b"), "x: error: a to b: Cross-device link"),
        (OSError(28, "No space left on device"), "x: error: No space left on device"),
        (MemoryError(), "x: error: out of memory"),
        (ReproError("run \x1b[31mred\x07\u202e"), r"x: error: run \x1b[31mred\x07\u202e"),
        (KeyError("seed"), "x: error: KeyError: 'seed'; likely a fault of this program: --debug"),
    ],
)
def test_every_failure_is_one_line(error, line, capsys):
    assert errors.exit_code("x: error", raising(error)) == 1
    said = capsys.readouterr().err
    assert said.startswith(line)
    assert said.count("\n") == 1
    with pytest.raises(type(error)):
        errors.exit_code("x: error", raising(error), debug=True)


def test_an_interrupt_says_how_to_go_on(capsys):
    assert errors.exit_code("x: error", raising(KeyboardInterrupt())) == 130
    assert capsys.readouterr().err == "x: stopped; the same command resumes\n"


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_a_terminal_shows_what_it_can(encoding, monkeypatch):
    shown = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(sys, "stdout", shown)
    assert errors.exit_code("x", lambda: print("α ± 1\t\x1b]0;title\x07\r") or 0) == 0
    expected = "α ± 1\t\\x1b]0;title\\x07\\r\n".encode(encoding, "replace")
    assert shown.buffer.getvalue() == expected
    assert sys.stdout is shown


COMMANDS = {
    "list": ("logit_distributions", "list", "--data", "tests/stored/2026-11-25"),
    "help": ("logit_distributions", "--help"),
    "table": ("paper.table2",),
    "claims": ("paper.claims", "gap-lower", "--details"),
}


def call(command: str, redirection: str = "", **environment: str) -> subprocess.CompletedProcess:
    line = f'"{sys.executable}" -m {" ".join(COMMANDS[command])} {redirection}'
    return subprocess.run(
        ["bash", "-c", line], cwd=places.ROOT, env=os.environ | environment, capture_output=True
    )


@pytest.fixture
def built(tmp_path, monkeypatch):
    monkeypatch.setenv("REPRO_BUILD", str(tmp_path))


@pytest.mark.parametrize("command", COMMANDS)
def test_a_full_or_closed_output_is_no_traceback(command, built):
    full = call(command, "> /dev/full")
    assert (full.returncode, full.stderr.count(b"\n")) == (1, 1)
    assert b": standard output: No space left on device" in full.stderr
    closed = call(command, "| true; exit ${PIPESTATUS[0]}")
    assert closed.returncode in (0, 1)  # 0: all was taken before the reader left
    assert closed.stderr == b""
    assert b"Traceback" not in call(command, ">&-").stderr


@pytest.mark.parametrize("command", ["table", "claims"])
def test_a_terminal_without_unicode_is_no_traceback(command, built):
    c_locale = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    for environment in (c_locale, {"PYTHONIOENCODING": "latin-1"}):
        done = call(command, **environment)
        assert (done.returncode, done.stderr) == (0, b"")
        assert done.stdout


# Full disks and read-only folders


def random_images(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 3, 32, 32), dtype=np.uint8)


def checkpoint() -> Checkpoint:
    state = ResNet18(10, 8).state_dict()
    return Checkpoint({f"model.{name}": each for name, each in state.items()}, {}, "0", 0, 1)


def figure() -> Figure:
    drawn = Figure()
    drawn.subplots().imshow(random_images(1)[0].transpose(1, 2, 0))
    return drawn


WRITERS: dict[str, Callable[[Path], object]] = {
    "dataset": lambda data: store.write(dataset(5000), data / "logits" / "toy.nc"),
    "published": lambda data: store.save(dataset(5000), data / "logits" / "toy.nc"),
    "checkpoint": lambda data: checkpoint().save(data / "run" / "epoch-001.safetensors"),
    "sheet": lambda data: images.write_sheet(random_images(200), data / "sheet.png"),
    "images": lambda data: images.write_cache("cifar10", toy.parts()),
    "unfinished": lambda data: files.keep(data / "part.npz", "key", total=np.zeros(100_000)),
    "figure": lambda data: style.save("toy", figure),
    "table": lambda data: tables.Table("table1", ("a",), [("b",)]).save(data, "table1"),
    "speed": lambda data: bench.write_json(data / "speed.json", {"width": 8}),
    "layer": lambda data: store.write_file(dataset(5000), data / "manifolds" / "pool.nc"),
    "trust": lambda data: trust.trust("mine:make", "0" * 64),
    "page": lambda data: page.write(),
    "report": lambda data: report.write(),
    "release": lambda data: release.write(data / "release"),
}
PLACES = ("full", "read-only", "limited")


def attempt(name: str, place: str, folder: Path) -> tuple[int, str, list[str]]:
    """Write into a folder that cannot take it; return the exit code, what is said, what is left."""
    os.environ |= {f"REPRO_{each}": str(folder) for each in ("DATA", "CACHE", "BUILD")}
    os.environ["XDG_STATE_HOME"] = str(folder)
    page.PAGE, page.page, report.page = folder / "page.md", lambda: ["page"], lambda: "page"
    release._commit, release._git = lambda: "0", lambda *arguments: b"sources"  # of no checkout
    if place == "limited":
        resource.setrlimit(resource.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY))
    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        code = errors.exit_code("x", lambda: WRITERS[name](folder) and 0)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
    beside = ("filler", files.LOCK)
    left = [str(path) for path in folder.rglob("*") if path.is_file() and path.name not in beside]
    return code, said.getvalue(), left


def attempts(folder: str) -> None:
    """Print what becomes of every writer on a small disk of its own, as JSON."""
    for place in PLACES:
        for name in WRITERS:
            disk = Path(folder) / place / name
            disk.mkdir(parents=True)
            subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "none", disk], check=True)
            if place == "full":
                with contextlib.suppress(OSError), (disk / "filler").open("wb", 0) as file:
                    while file.write(bytes(4096)):
                        pass
            elif place == "read-only":
                subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
            print(json.dumps([place, name, *attempt(name, place, disk)]))


@pytest.fixture(scope="module")
def attempted(tmp_path_factory) -> dict[tuple[str, str], tuple[int, str, list[str]]]:
    if shutil.which("unshare") is None:
        pytest.skip("no unshare: no small disks can be mounted")
    code = (
        f"from tests.test_errors import attempts; attempts({str(tmp_path_factory.mktemp('d'))!r})"
    )
    done = subprocess.run(
        ["unshare", "--mount", "--map-root-user", sys.executable, "-c", code],
        cwd=places.ROOT, capture_output=True, text=True,
    )  # fmt: skip
    if "unshare" in done.stderr or "mount:" in done.stderr:
        pytest.skip(f"no small disks can be mounted: {done.stderr.splitlines()[0]}")
    assert done.returncode == 0, done.stderr
    rows = map(json.loads, done.stdout.splitlines())
    return {(place, name): tuple(result) for place, name, *result in rows}


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("place", PLACES)
def test_what_cannot_be_written_is_one_line_and_not_begun(place, name, attempted):
    code, said, left = attempted[place, name]
    reason = {
        "full": "No space left on device",
        "read-only": "Read-only file system",
        "limited": "File too large",
    }[place]
    assert (code, said.count("\n")) == (1, 1)
    assert said.endswith(f": {reason}\n")
    assert "Traceback" not in said
    assert ".part" not in said
    assert left == []


def test_the_umask_is_honoured(tmp_path):
    for mask, mode in ((0o022, 0o644), (0o002, 0o664), (0o077, 0o600)):
        before = os.umask(mask)
        try:
            store.write(dataset(), tmp_path / "toy.nc")
            checkpoint().save(tmp_path / "toy.safetensors")
            images.write_sheet(random_images(1), tmp_path / "toy.png")
        finally:
            os.umask(before)
        for path in tmp_path.iterdir():
            assert path.stat().st_mode & 0o777 == mode, path
            path.unlink()
