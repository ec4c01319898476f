"""Fixtures: the toy data set in folders of its own, and the stored real results."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from logit_distributions import images, recipes
from logit_distributions.store import places
from tests import miniature, toy

STORED = places.data()

LONGEST = ("workflow", "stored", "cli", "report", "slices", "train", "run", "figures", "errors")
"""Files of tests that take a minute or more. They come first: two processes then end together."""

# Where the tests run in the background, a shell may have had interrupts ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)

os.environ["PYTHONPATH"] = os.pathsep.join(
    str(places.ROOT / each) for each in (".", "repro", "kernels")
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    order = {f"test_{name}.py": place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(item.path.name, len(order)))


@pytest.fixture(autouse=True, scope="session")
def _two_threads() -> None:
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))


@pytest.fixture(scope="session")
def toy_sheets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the toy data set as PNG sheets."""
    folder = tmp_path_factory.mktemp("sheets")
    toy.write_sheets(folder)
    return folder


@pytest.fixture
def toy_world(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, toy_sheets: Path) -> Path:
    """Make the toy data set and scale the only ones, with empty data and cache folders."""
    monkeypatch.setitem(images.SPECS, "cifar10", images.SPECS["cifar10"])
    monkeypatch.setitem(recipes.SCALES, "small", recipes.SCALES["small"])
    toy.install()
    for name in ("data", "cache", "build"):
        monkeypatch.setenv(f"REPRO_{name.upper()}", str(tmp_path / name))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, which is the cache too."""
    monkeypatch.setenv("REPRO_CACHE", str(tmp_path))
    return tmp_path


@pytest.fixture(scope="session")
def rehearsal(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Logits of the miniature, from one process that nobody killed."""
    world = tmp_path_factory.mktemp("rehearsal")
    miniature.run_alone(world)
    return miniature.results(world)


@pytest.fixture(autouse=True)
def _environment_is_restored() -> Iterator[None]:
    """The command's ``--data`` sets a variable; no test may leave it behind."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)
