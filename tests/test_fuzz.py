"""A thousand damaged inputs: each gives one clear line, and the data stay as they were."""

from __future__ import annotations

import hashlib
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from logit_distributions import cli, images, manipulations, recipes, store
from logit_distributions.errors import ReproError
from logit_distributions.make import checkpoint
from logit_distributions.make.network import ResNet18
from logit_distributions.store import places
from logit_distributions.store.files import resume
from tests import toy
from tests.test_store import dataset

FLIPS = 100  # of each of eight kinds of file; with the options and arrays below, 1,000


def _damage(content: bytes, draws: np.random.Generator) -> bytes:
    """Flip a few bits, or cut the end off."""
    if draws.random() < 0.1:
        return content[: draws.integers(len(content))]
    damaged = bytearray(content)
    for position in draws.integers(len(content), size=draws.integers(1, 4)):
        damaged[position] ^= 1 << draws.integers(8)
    return bytes(damaged)


def _same(a: object, b: object) -> bool:
    if isinstance(a, xr.Dataset):
        return a.identical(b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(_same(a[name], b[name]) for name in a)
    if isinstance(a, tuple):
        return all(_same(x, y) for x, y in zip(a, b, strict=True))
    return np.array_equal(np.asarray(a), np.asarray(b))


def _checkpoint(path: Path) -> object:
    loaded = checkpoint.Checkpoint.load(path)
    return {name: tensor.numpy() for name, tensor in loaded.tensors.items()}


def _folder(path: Path) -> object:
    folder = path.parent.parent if path.parent.name == images.CIFAR10.folder else path.parent
    return images.fetch(images.spec_of("cifar10"), folder)


READERS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "dataset": ("data/logits/toy.nc", store.open_dataset),
    "unregistered dataset": ("loose/toy.nc", store.open_dataset),
    "checkpoint": ("toy.safetensors", _checkpoint),
    "sheet": ("sheets/data_batch_2.png", _folder),
    "labels": ("sheets/train_labels.json", _folder),
    "batch": ("original/cifar-10-batches-py/data_batch_2", _folder),
    "tarball": ("tar/cifar-10-python.tar.gz", _folder),
    "partial run": ("partial.npz", lambda path: resume(path, "key") or {}),
}


@pytest.fixture
def files(toy_world, toy_sheets):
    """One good file of each kind."""
    world = toy_world
    with store.registering(world / "data" / "logits" / "toy.nc"):
        store.write(dataset(), world / "data" / "logits" / "toy.nc")
    store.write(dataset(), world / "loose" / "toy.nc")
    model = ResNet18(10, 8).state_dict()
    recipe = recipes.recipe("st")
    checkpoint.Checkpoint(
        {f"model.{k}": v for k, v in model.items()}, {"name": "st", "width": 8}, recipe.hash, 0, 1
    ).save(world / "toy.safetensors")
    shutil.copytree(toy_sheets, world / "sheets")
    toy.write_batches(world / "original")
    (world / "tar").mkdir()
    with tarfile.open(world / "tar" / "cifar-10-python.tar.gz", "w:gz") as archive:
        archive.add(world / "original" / images.CIFAR10.folder, images.CIFAR10.folder)
    np.savez(world / "partial.npz", key=np.array("key"), total=np.arange(50.0), done=3)
    return world


def _fingerprint(folder: Path) -> dict[str, str]:
    paths = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


@pytest.mark.parametrize("kind", READERS)
@pytest.mark.filterwarnings("ignore")  # zip and PNG readers warn of damage before they fail
def test_damaged_files(kind, files):
    name, read = READERS[kind]
    path = files / name
    good, reference = path.read_bytes(), read(path)
    draws = np.random.default_rng(list(kind.encode()))
    harmless = 0
    for _ in range(FLIPS):
        path.write_bytes(_damage(good, draws))
        before = _fingerprint(files)
        try:
            opened = read(path)
        except ReproError as error:
            message = str(error)
            assert len(message.splitlines()) == 1
            assert len(message) > 20
        else:
            harmless += 1  # the damage is in bytes that carry nothing
            assert opened == {} or _same(opened, reference)
        assert _fingerprint(files) == before
    assert harmless < FLIPS
    if kind in ("dataset", "checkpoint"):
        assert harmless == 0


VALUES = ["", "-1", "0", "1e9", "nan", "8", "8/0", "tableX", "cpu:7", "\x00", "ü", "/nowhere", "--"]
COMMANDS = {
    "make": ["--seed", "--scale", "--device", "--precision", "--threads", "--images"],
    "attack": ["--engine", "--eps", "--iterations", "--restarts", "--limit", "--seed"],
    "capacity": ["--kind", "--exemplars", "--points", "--draws", "--eps", "--seed"],
    "show": [], "validate": [], "fetch": ["--dataset", "--images"], "list": ["--data"],
}  # fmt: skip


def test_options_out_of_range(files, capsys):
    draws = np.random.default_rng(0)
    before = _fingerprint(files)
    for _ in range(100):
        command = str(draws.choice(list(COMMANDS)))
        arguments = [command]
        if command not in ("fetch", "list"):
            arguments.append(str(draws.choice([*VALUES, "/nowhere.nc"])))
        for option in COMMANDS[command]:
            if draws.random() < 0.5:
                arguments += [option, str(draws.choice(VALUES))]
        try:
            code = cli.main(arguments)
        except SystemExit as stopped:
            code = stopped.code
        printed = capsys.readouterr()
        if command in ("list", "validate") and code == 0:
            continue
        assert code in (1, 2), arguments
        assert printed.err or printed.out
        assert "Traceback" not in printed.err
        if code == 1 and printed.err:
            assert len(printed.err.strip().splitlines()) == 1, arguments
    assert _fingerprint(files) == before


def test_wrong_shapes(files):
    draws = np.random.default_rng(1)
    before = _fingerprint(files)
    for _ in range(100):
        n, classes = draws.integers(1, 6, size=2)
        logits = draws.normal(size=(n, classes))
        kind = draws.integers(3)
        if kind == 0:
            k = int(draws.choice([-1, classes + 1, 99]))
            with pytest.raises(ReproError, match="expected k from 0"):
                manipulations.permute(logits, k, 0)
        elif kind == 1:
            with pytest.raises(ReproError, match="expected two arrays of one shape"):
                manipulations.hybrid(logits, draws.normal(size=(n, classes + 1)))
        else:
            made = dataset()
            victim = str(draws.choice(["logits", "adversarial_logits", "robust", "label"]))
            made[victim] = made[victim].rename({made[victim].dims[0]: "other"})
            with pytest.raises(ReproError, match=f"{victim}: expected dimensions"):
                store.write(made, places.data() / "logits" / "wrong.nc")
    assert _fingerprint(files) == before
