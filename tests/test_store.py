import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path

import netCDF4
import numpy as np
import pytest
import xarray as xr

from logit_distributions import images, store
from logit_distributions.errors import ReproError
from logit_distributions.make.checkpoint import Checkpoint
from logit_distributions.recipes import recipe
from logit_distributions.store import files, places
from logit_distributions.store.schema import content_sha256

STORED = places.ROOT / "data"


def dataset(n: int = 12, seed: int = 0, **attributes: object) -> xr.Dataset:
    """Return a valid dataset of logits: some right, some wrong, some fooled."""
    draws = np.random.default_rng(seed)
    logits = draws.normal(size=(n, 4)).astype(np.float32)
    adversarial = logits.copy()
    label = draws.integers(0, 4, n)
    label[: n // 2] = logits[: n // 2].argmax(1)
    adversarial[: n // 4] = -logits[: n // 4]
    natural = logits.argmax(1) == label
    final = natural & (adversarial.argmax(1) == label)
    made = {
        "kind": "logits", "run": "toy", "method": "standard", "dataset": "cifar10",
        "data_sha256": "0" * 64, "recipe": "{}", "recipe_hash": "0" * 16, "seed": 0,
        "scale": "small", **store.provenance(), **attributes,
    }  # fmt: skip
    return xr.Dataset(
        {
            "logits": (("sample", "class"), logits),
            "adversarial_logits": (("sample", "class"), adversarial),
            "robust": (("attack", "sample"), np.stack([natural, final])),
            "label": ("sample", label.astype(np.int16)),
            "index": ("sample", np.arange(n, dtype=np.int32)),
        },
        coords={"class": list("abcd"), "attack": ["apgd-ce", "apgd-dlr"]},
        attrs=made,
    )


def test_sources_without_a_history_can_be_told_their_commit(monkeypatch, tmp_path):
    monkeypatch.setattr(places, "ROOT", tmp_path)
    monkeypatch.delenv("REPRO_COMMIT", raising=False)
    assert store.provenance()["commit"] == "unknown"
    monkeypatch.setenv("REPRO_COMMIT", "abc123")
    assert store.provenance()["commit"] == "abc123"


@pytest.fixture
def data(tmp_path, monkeypatch):
    monkeypatch.setenv("REPRO_DATA", str(tmp_path))
    return tmp_path


def test_what_is_written_is_read_back(data):
    path = data / "logits" / "toy.nc"
    written = dataset()
    store.write(written, path)
    read = store.open_dataset(path, "logits")
    xr.testing.assert_equal(read, written)
    assert read.attrs["schema"] == store.SCHEMA
    assert read["robust"].dtype == bool
    assert store.validate(path) == []
    assert [p.name for p in path.parent.iterdir()] == ["toy.nc"]


def _broken(**changes):
    made = dataset()
    for name, values in changes.items():
        made[name] = (made[name].dims, values)
    return made


def epochs_dataset(**changes: object) -> xr.Dataset:
    """Return a valid record of two epochs, with some variables replaced."""
    base = dataset()
    second = np.sort(base["logits"].values, 1)[:, -2]
    variables = {
        "largest": (("epoch", "sample"), np.stack([second, second + 1])),
        "second": (("epoch", "sample"), np.stack([second, second])),
        "prediction": (("epoch", "sample"), np.zeros((2, 12), np.int16)),
        "test": ("sample", np.arange(12) > 5),
    }
    made = base.drop_dims("attack").drop_vars(["logits", "adversarial_logits"])
    made = made.assign_attrs(kind="epochs").assign(variables)
    for name, values in changes.items():
        made[name] = (made[name].dims, values)
    return made


def _nan():
    logits = dataset()["logits"].values.copy()
    logits[3, 1], logits[4, 2] = np.nan, np.inf
    return _broken(logits=logits)


FAULTS = {
    "missing variable 'label'": lambda: dataset().drop_vars("label"),
    "missing attributes recipe": lambda: (
        dataset()
        .drop_attrs()
        .assign_attrs({k: v for k, v in dataset().attrs.items() if k != "recipe"})
    ),
    "2 values are NaN or infinite": _nan,
    "label: expected 0 to 3, got": lambda: _broken(label=np.full(12, 4, np.int16)),
    "contradicts the adversarial logits of": lambda: _broken(
        robust=np.ones((2, 12), bool) & (dataset()["robust"].values[0])
    ),
    "robust after an attack but not before": lambda: _broken(
        robust=dataset()["robust"].values[::-1] & np.array([[False], [True]])
        | np.stack([np.zeros(12, bool), dataset()["robust"].values[1]])
    ),
    "expected dimensions": lambda: dataset().rename(sample="image"),
    "expected numbers of kind 'f'": lambda: _broken(logits=np.ones((12, 4), np.int32)),
    "prediction: 12 values are not in 0 to 3": lambda: epochs_dataset(
        prediction=np.repeat([[4], [3]], 12, 1).astype(np.int16)
    ),
    "largest: 12 values are below the second": lambda: epochs_dataset(
        second=epochs_dataset()["largest"].values + np.float32([[0], [1]])
    ),
    "unknown kind": lambda: dataset(kind="figures"),
}


@pytest.mark.parametrize("message", FAULTS)
def test_faults_are_named_and_never_written(data, message):
    path = data / "logits" / "toy.nc"
    with pytest.raises(ReproError, match=message):
        store.write(FAULTS[message](), path)
    assert not path.exists()
    assert not path.parent.exists() or not list(path.parent.iterdir())


def test_records_by_epoch_are_written(data):
    store.write(epochs_dataset(), data / "epochs" / "toy.nc")
    assert store.open_dataset(data / "epochs" / "toy.nc", "epochs").sizes["epoch"] == 2


def test_an_unknown_schema_is_refused(data):
    path = data / "toy.nc"
    store.write(dataset(), path)
    with netCDF4.Dataset(path, "a") as file:
        file.schema = "logit-distributions/99"
    assert "unknown schema version" in store.validate(path)[0]


def test_a_value_changed_after_writing_is_found(data):
    path = data / "toy.nc"
    store.write(dataset(), path)
    with netCDF4.Dataset(path, "a") as file:
        file["logits"][0, 0] += 1e-3
    with pytest.raises(ReproError, match="does not match its own SHA-256"):
        store.open_dataset(path)


def test_registry_finds_replaced_files_and_is_sha256sums(data):
    path = data / "logits" / "toy.nc"
    with store.registering(path):
        store.write(dataset(), path)
    line = (data / store.REGISTRY).read_text()
    assert line == f"{hashlib.sha256(path.read_bytes()).hexdigest()}  logits/toy.nc\n"
    assert store.validate(path) == []
    store.write(dataset(seed=1), path)
    assert "expected SHA-256" in store.validate(path)[0]
    with store.registering(path):
        store.write(dataset(seed=1), path)
    assert store.validate(path) == []


def test_only_the_registry_of_the_data_folder_counts(tmp_path, monkeypatch):
    """Not one of downloads above it, and not one in a folder below."""
    monkeypatch.setenv("REPRO_DATA", str(tmp_path / "data"))
    (tmp_path / store.REGISTRY).write_text(f"{'0' * 64}  data/logits/toy.nc\nnot a line\n")
    path = tmp_path / "data" / "logits" / "toy.nc"
    store.write(dataset(), path)
    assert store.registry(path) is None
    assert store.validate(path) == []
    (path.parent / store.REGISTRY).write_text(f"{'0' * 64}  toy.nc\n")
    assert store.validate(path) == []


def test_lines_of_binary_mode_are_understood(data):
    path = stored("st", 0)
    registry = data / store.REGISTRY
    digest = files.sha256(path)
    registry.write_text(f"{digest} *logits/{path.name}\r\n")
    assert store.registry(path) == digest
    registry.write_text(f"{'0' * 64} *logits/{path.name}\n")
    assert "expected SHA-256 000" in store.validate(path)[0]
    registry.write_text(f"{digest}\tlogits/{path.name}\n")
    assert "expected lines of a SHA-256" in store.validate(path)[0]


def test_a_cut_before_registering_leaves_no_wrong_entry(data):
    path = data / "logits" / "toy.nc"
    with store.registering(path):
        store.write(dataset(), path)

    def cut():
        with store.registering(path):
            store.write(dataset(seed=1), path)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cut()
    assert store.registry(path) is None
    assert store.validate(path) == []


def stored(name: str, seed: int, scale: str = "small") -> Path:
    """Store a valid dataset of logits of a recipe."""
    wanted = recipe(name, scale)
    path = store.path_of("logits", wanted.run(seed))
    about = {"run": wanted.run(seed), "recipe": wanted.to_json(), "seed": seed, "scale": scale}
    store.write(dataset(seed=seed).assign_attrs(about), path)
    return path


def test_datasets_are_found_by_recipe_then_seed(data):
    for name, seed in (("st", 10), ("st", 2), ("at", 0), ("fix-1-permute", 0)):
        stored(name, seed)
    stored("st", 0, "medium")

    def runs(*arguments):
        return [each.attrs["run"] for each in store.find("logits", *arguments)]

    assert runs("st", "cifar10", "small") == ["cifar10-small-st-seed2", "cifar10-small-st-seed10"]
    assert len(runs()) == 5
    assert runs("*", "cifar10", "medium") == ["cifar10-medium-st-seed0"]
    assert runs("permute") == runs("*", "cifar100") == []
    assert store.need("logits", "at", scale="small")[0].attrs["seed"] == 0


def test_a_stored_file_is_opened_once_until_it_changes(data, monkeypatch):
    path = stored("st", 0)
    (first,), (again,) = store.find("logits"), store.find("logits")
    assert first is again
    store.write(first.assign_attrs(note="changed"), path)
    assert store.find("logits")[0].attrs["note"] == "changed"


def test_what_is_missing_names_the_file_and_the_command(data):
    with pytest.raises(store.Missing) as error:
        store.need("logits", "at", "cifar100", "paper")
    assert str(error.value) == (
        f"{data}/logits/cifar100-paper-at-seed0.nc is missing; make it with "
        "'logitdist make logits/at --dataset cifar100 --scale paper'"
    )


def test_a_copy_under_another_name_is_refused_or_not_counted(data):
    """As a sync client, a slip of the hand, or a seed renamed leaves it."""
    path = stored("st", 0)
    shutil.copy(path, path.with_name("cifar10-small-st-seed0 (1).nc"))
    assert len(store.find("logits")) == 1
    for name in ("cifar10-small-st-seed0 (1)", "cifar10-small-st-seed1", "cifar10-small-at-seed0"):
        copy = path.with_name(f"{name}.nc")
        shutil.copy(path, copy)
        line = (
            f"expected the run {name}, as its name says, got {path.stem}; likely copied or renamed"
        )
        assert store.validate(copy) == [line]
    with pytest.raises(ReproError, match="likely copied or renamed"):
        store.find("logits")
    (data / "log").mkdir()
    shutil.copy(path, data / "log" / path.name)
    with pytest.raises(ReproError, match="expected a dataset of log, as its folder says"):
        store.need("log", "st")


def test_a_variant_is_held_to_its_folder(data):
    """The same run attacked otherwise, or measured on other manifolds, has the same name."""
    path = stored("st", 0)
    odi = data / "logits" / "odi" / path.name
    about = store.read_file(path).attrs | {"evaluation": '{"engine": "odi"}'}
    store.write(dataset().assign_attrs(about), odi)
    assert store.validate(odi) == []
    shutil.copy(odi, path)
    line = "expected a dataset of logits, as its folder says, got logits/odi; likely misplaced"
    assert store.validate(path) == [line]


def test_a_seed_is_held_to_its_name(data):
    path = stored("st", 1)
    store.write(store.read_file(path).assign_attrs(seed=0), path)
    assert store.validate(path) == [
        "expected seed 1, as its name says, got 0; likely tampered with"
    ]


def published(data: Path) -> dict[str, Path]:
    """Return one registered file of each kind that is stored."""
    names = {
        "dataset": "logits/cifar10-small-st-seed0.nc",
        "checkpoint": "checkpoints/cifar10-small-at-seed0.safetensors",
        "sheet": "images/cifar10-test-first-1000.png",
    }  # fmt: skip
    for name in names.values():
        with store.registering(data / name):
            (data / name).parent.mkdir(exist_ok=True)
            shutil.copy(STORED / name, data / name)
    return {kind: data / name for kind, name in names.items()}


OPENED: dict[str, Callable[[Path], object]] = {
    "dataset": store.open_dataset, "checkpoint": Checkpoint.load, "sheet": images.read_sheet,
}  # fmt: skip


def mirrored(path: Path) -> None:
    """Damage a file such that its format stays valid."""
    if path.suffix == ".png":
        images.write_sheet(np.ascontiguousarray(images.read_sheet(path)[..., ::-1]), path)
    else:
        content = bytearray(path.read_bytes())
        content[-100] ^= 1
        path.write_bytes(content)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "one bit": mirrored,
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-10]),
    "empty": lambda path: path.write_bytes(b""),
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"\0"),
}


def problems(folder: Path) -> dict[str, list[str]]:
    """Return the faults of a folder by name of the file, where there are any."""
    return {path.name: faults for path, faults in store.validate_folder(folder) if faults}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("kind", OPENED)
def test_damage_is_found_by_validate_and_where_the_file_is_opened(kind, damage, data):
    path = published(data)[kind]
    assert problems(data) == {}
    OPENED[kind](path)
    DAMAGES[damage](path)
    (faults,) = problems(data).values()
    assert "expected SHA-256" in faults[0]
    with pytest.raises(ReproError, match="expected SHA-256"):
        OPENED[kind](path)


def test_files_and_lines_belong_together(data):
    _, weights, sheet = published(data).values()
    (data / "README.md").write_text("about")
    (data / "logits" / ".x.part").write_text("left by a kill")
    other = stored("at", 0)
    weights.rename(weights.with_name("cifar10-small-st-seed0.safetensors"))
    named = problems(data)
    assert named.pop(other.name) == [
        "no line in SHA256SUMS; the next 'logitdist make' that wants it adds it"
    ]
    gone = ["listed in SHA256SUMS, but not there; likely deleted or renamed"]
    assert named.pop(weights.name) == gone
    assert (
        "expected the run cifar10-small-st-seed0"
        in named.pop("cifar10-small-st-seed0.safetensors")[0]
    )
    assert named == {}
    assert problems(data / "images") == {}
    (data / store.REGISTRY).write_text("damaged\n")
    assert problems(data / "images") == {
        store.REGISTRY: [problems(data)[store.REGISTRY][0]],
        sheet.name: [f"{data / store.REGISTRY}: {problems(data)[store.REGISTRY][0]}"],
    }


def test_weights_that_no_registry_knows_are_held_to_their_seal_and_name(data, tmp_path):
    name = "cifar10-small-at-seed0.safetensors"
    path = data / "checkpoints" / name
    path.parent.mkdir()
    shutil.copy(STORED / "checkpoints" / name, path)
    assert store.validate(path) == []
    copy = path.with_name("cifar10-small-st-seed1.safetensors")
    shutil.copy(path, copy)
    assert "expected the run cifar10-small-st-seed1" in store.validate(copy)[0]
    shutil.copy(path, data / "x.safetensors")
    assert len(store.validate(data / "x.safetensors")) == 2
    mirrored(path)
    assert store.validate(path) == [
        "content does not match its own SHA-256; likely changed after it was written"
    ]
    path.write_bytes(b"\xff" * 100)
    assert "cannot be read as a checkpoint" in store.validate(path)[0]


def test_a_folder_elsewhere_is_checked_by_its_own_registry(data, tmp_path, monkeypatch):
    path = stored("st", 0)
    with store.registering(path):
        pass
    monkeypatch.setenv("REPRO_DATA", str(tmp_path / "other"))
    assert problems(data) == {}
    path.rename(path.with_name("cifar10-small-st-seed1.nc"))
    assert len(problems(data)) == 2
    loose = tmp_path / "loose"
    store.write(dataset(), loose / "weaker attack.nc")
    assert problems(loose) == {}


def test_folders_of_the_data_may_be_links_to_another_disk(data, tmp_path_factory):
    disk = tmp_path_factory.mktemp("disk")
    (data / "logits").symlink_to(disk)
    (disk / "round").symlink_to(data)  # a circle ends
    path = stored("st", 0)
    with store.registering(path):
        pass
    assert (disk / path.name).exists()
    assert store.registry(path) == files.sha256(path)
    assert store.stored_files(data) == [path]
    assert [each.attrs["run"] for each in store.find("logits")] == [path.stem]
    assert problems(data) == {}
    shutil.copy(path, disk / "cifar10-small-st-seed1.nc")
    with pytest.raises(ReproError, match="likely copied or renamed"):
        store.find("logits")


def test_missing_and_truncated_files(data):
    path = data / "logits" / "toy.nc"
    assert store.validate(path) == ["no such file"]
    store.write(dataset(), path)
    path.write_bytes(path.read_bytes()[:500])
    assert "truncated or damaged" in store.validate(path)[0]


def test_atomic_leaves_nothing_behind_on_error(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old")

    def fail():
        with files.atomic(path) as temporary:
            temporary.write_text("half")
            raise OSError("disk full")

    with pytest.raises(ReproError, match=r"file.txt: could not be written: OSError: disk full"):
        fail()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_kill_leaves_behind_is_no_result(data):
    path = data / "logits" / "toy.nc"
    store.write(dataset(), path)
    with files.atomic(path) as temporary:
        assert list(data.rglob("*.nc")) == [path]
        temporary.write_bytes(path.read_bytes())
    assert store.validate(path) == []


@pytest.mark.parametrize("kind", ["float32", "int16", "int32", "bool", "int64"])
def test_a_small_result_is_classic_where_that_changes_nothing(kind, tmp_path, monkeypatch):
    monkeypatch.setenv("REPRO_DATA", str(tmp_path / "data"))
    written = xr.Dataset(
        {"values": ("name", np.array([0, 1, 1], kind))}, {"name": ["é", "longer", ""]}, {"n": 3}
    )
    for folder, may_be_classic in (("data", True), ("elsewhere", False)):
        path = tmp_path / folder / "small.nc"
        store.write_file(written, path)
        is_classic = path.read_bytes().startswith(b"CDF")
        assert is_classic == (may_be_classic and kind != "int64")
        read = store.read_file(path)
        assert {name: each.dtype.kind for name, each in read.variables.items()} == {
            name: each.dtype.kind for name, each in written.variables.items()
        }
        assert content_sha256(read) == content_sha256(written)


def test_a_large_variable_is_compressed(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, 10_000) / np.float32(255)
    sizes = {}
    for name in ("images", "values"):
        written = xr.Dataset({name: ("pixel", pixels)})
        store.write_file(written, tmp_path / "large.nc")
        assert (tmp_path / "large.nc").read_bytes().startswith(b"\x89HDF")
        assert store.read_file(tmp_path / "large.nc").identical(written)
        sizes[name] = (tmp_path / "large.nc").stat().st_size
    assert sizes["images"] < sizes["values"] < pixels.nbytes  # few different values
