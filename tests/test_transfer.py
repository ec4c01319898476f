"""A run cut by its budget, carried to another machine, finished there: the same bits."""

import json
import shutil

import numpy as np
import pytest
import xarray as xr

from logit_distributions import (
    cli,
    images,
    paths,
    recipes,
    record,
    schedule,
    store,
    training,
    transfer,
)
from logit_distributions.attack import Evaluation
from logit_distributions.budget import Budget, OutOfTime
from logit_distributions.checkpoints import Checkpoint
from logit_distributions.errors import ReproError
from logit_distributions.network import ResNet18
from tests import toy

ST = recipes.recipe("st")
JOBS = [schedule.Job("attack", ST, 0)]


@pytest.fixture
def machine(monkeypatch, toy_world):
    """Return a function that moves to a machine of this name, with folders of its own."""

    def move(name):
        for kind in ("data", "cache"):
            monkeypatch.setenv(f"REPRO_{kind.upper()}", str(toy_world / name / kind))
        return toy_world / name

    return move


def cut_after(monkeypatch, steps):
    """Let every budget be spent after so many training steps or other beginnings."""
    left = iter(range(steps))
    monkeypatch.setattr(Budget, "spent", property(lambda self: next(left, None) is None))


def run(sheets, *more):
    return cli.main(["run", "st", "--seed", "0", "--images", str(sheets), *more])


def test_a_run_travels_twice_and_ends_with_the_same_logits(
    machine, toy_sheets, monkeypatch, capsys
):
    machine("whole")
    assert run(toy_sheets) == 0
    whole = store.open_dataset(JOBS[0].path)
    for here, there, steps in (("one", "two", 4), ("two", "three", 6)):
        place = machine(here)
        with monkeypatch.context() as patch:
            cut_after(patch, steps)
            assert run(toy_sheets, "--budget", "1h") == cli.TEMPORARY_FAILURE
        assert "0 of 1 done" in capsys.readouterr().err
        assert cli.main(["export", str(place / "pack"), "st", "--seed", "0"]) == 0
        machine(there)
        assert cli.main(["import", str(place / "pack")]) == 0
        assert "rolling.safetensors: new" in capsys.readouterr().out
    assert run(toy_sheets, "--budget", "1h") == 0
    found = store.open_dataset(JOBS[0].path)
    assert found.attrs["checkpoint_sha256"] == whole.attrs["checkpoint_sha256"]
    for name in ("logits", "adversarial_logits", "robust"):
        np.testing.assert_array_equal(found[name], whole[name])


def test_a_machine_without_netcdf_makes_what_import_turns_into_datasets(
    machine, toy_sheets, monkeypatch, capsys
):
    place = machine("plain")
    with monkeypatch.context() as patch:
        patch.setattr(store, "suffix", lambda: store.PLAIN)
        assert run(toy_sheets) == 0
        plain = store.open_dataset(JOBS[0].path, "logits")
        assert JOBS[0].path.suffix == ".npz"
        with np.load(JOBS[0].path) as arrays:  # anybody can read it
            np.testing.assert_array_equal(arrays["logits"], plain["logits"])
        assert cli.main(["validate", str(paths.data())]) == 0
        assert cli.main(["export", str(place / "pack"), "st", "--seed", "0"]) == 0
    machine("reader")
    assert cli.main(["import", str(place / "pack")]) == 0
    assert cli.main(["validate", str(paths.data())]) == 0
    read = store.open_dataset(JOBS[0].path, "logits")
    assert JOBS[0].path.suffix == ".nc"
    assert read.attrs["content_sha256"] == plain.attrs["content_sha256"]
    assert store.registry(JOBS[0].path) is not None
    capsys.readouterr()
    assert cli.main(["import", str(place / "pack")]) == 0
    assert "new" not in capsys.readouterr().out


def test_targets_and_attacks_stop_between_their_parts(toy_world, toy_sheets, monkeypatch):
    data = images.load("cifar10", "test", toy_sheets)
    model = ResNet18(10, 8)
    tensors = {f"model.{name}": each for name, each in model.state_dict().items()}
    plain = json.loads(ST.to_json())
    checkpoint = Checkpoint(tensors, plain, ST.hash, 0, epoch=2)
    machine, settings = training.Machine("cpu"), Evaluation(iterations=1)

    def attacked(budget=None):
        return record.attack(checkpoint, data, settings, machine, budget, chunk=40)

    def taught(budget=None):
        return record.targets(checkpoint, data, 3, machine, budget)

    for make, part in ((attacked, "image 40 of the attack"), (taught, "pass 2 of")):
        with monkeypatch.context() as patch:
            cut_after(patch, 1)
            with pytest.raises(OutOfTime, match=f"next comes {part}"):
                make(Budget(3600))
        resumed = make()
        shutil.rmtree(paths.cache())
        xr.testing.assert_equal(resumed, make())


@pytest.fixture
def packed(toy_world, monkeypatch):
    """Two files in a pack of several small pieces; the cache is empty again."""
    monkeypatch.setattr(transfer, "PIECE", 5000)
    place = paths.cache() / "attacks"
    place.mkdir(parents=True)
    draws = np.random.default_rng(0)
    for name in ("a.npz", "b.npz"):
        (place / name).write_bytes(draws.bytes(12_000))
    files = {f"cache/attacks/{path.name}": path for path in sorted(place.iterdir())}
    transfer.pack(files, toy_world / "pack")
    contents = {name: path.read_bytes() for name, path in files.items()}
    shutil.rmtree(place)
    return toy_world / "pack", contents


def test_what_unfinished_runs_need_is_packed_and_no_more(toy_world):
    st, at = recipes.recipe("st", "paper"), recipes.recipe("at", "paper")
    everything = [paths.epoch_file(st, 0, 200)]
    everything += [paths.epoch_file(at, 0, epoch) for epoch in (10, 40, 100)]
    everything += [
        paths.rolling_file(at, 0),
        paths.cache() / "targets" / f"{at.run(0)}-epoch40.npz",
    ]
    for path in everything:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()

    def packed(*names):
        jobs = schedule.jobs(names, "paper", seeds=[0])
        return {path.stem for path in transfer.contents(jobs).values()}

    targets = f"{at.run(0)}-epoch40"
    always = {"rolling", "epoch-040", targets}
    assert packed("normal") == always
    assert packed("hybrid") == always | {"epoch-200"}
    assert packed("logits-epoch-100") == always | {"epoch-100"}
    assert packed("figure1") == always | {"epoch-010", "epoch-100", "epoch-200"}


def test_pieces_are_small_and_come_together_again(packed):
    pack, contents = packed
    pieces = sorted(pack.glob("piece-*"))
    assert len(pieces) > 4
    assert max(piece.stat().st_size for piece in pieces) == 5000
    assert set(transfer.unpack(pack).values()) == {"new"}
    for name, content in contents.items():
        assert (paths.cache() / name.removeprefix("cache/")).read_bytes() == content
    assert set(transfer.unpack(pack).values()) == {"here already"}


def damage(pack):
    piece = pack / "piece-001"
    piece.write_bytes(piece.read_bytes()[:-1] + b"?")


def lose(pack):
    (pack / "piece-002").unlink()


def escape(pack):
    file = pack / transfer.MANIFEST
    about = json.loads(file.read_text())
    about["files"]["cache/../../evil"] = about["files"].popitem()[1]
    file.write_text(json.dumps(about))


def other(pack):
    (pack / transfer.MANIFEST).write_text('{"schema": "zip"}')


def list_instead(pack):
    about = {"schema": transfer.SCHEMA, "pieces": [], "files": []}
    (pack / transfer.MANIFEST).write_text(json.dumps(about))


def none(pack):
    (pack / transfer.MANIFEST).unlink()


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (damage, "piece-001: expected SHA-256"),
        (lose, "piece-002 missing of"),
        (escape, "is not a place in the folders"),
        (other, "expected a manifest of a pack"),
        (list_instead, "expected a manifest of a pack"),
        (none, "likely it was not copied as a whole"),
    ],
)
def test_a_harmed_pack_changes_nothing(packed, harm, message):
    pack, _ = packed
    harm(pack)
    with pytest.raises(ReproError, match=message):
        transfer.unpack(pack)
    assert not [path for path in paths.cache().rglob("*") if path.is_file()]


def test_two_results_of_one_run_are_refused(toy_world, monkeypatch):
    place = toy_world / "pack"
    file = paths.data() / "checkpoints" / "x.safetensors"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"one")
    transfer.pack({"data/checkpoints/x.safetensors": file}, place)
    file.write_bytes(b"two")
    with pytest.raises(ReproError, match="likely the run was made on both machines"):
        transfer.unpack(place)
    assert file.read_bytes() == b"two"


def test_the_further_state_of_a_training_stays(toy_world, toy_sheets, monkeypatch):
    rolling = paths.rolling_file(ST, 0)
    for number, steps in enumerate((3, 5)):
        with monkeypatch.context() as patch:
            cut_after(patch, steps)
            with pytest.raises(OutOfTime):
                training.train(ST, 0, images=toy_sheets, budget=Budget(3600))
        transfer.pack(transfer.contents(JOBS), toy_world / f"pack{number}")
    further = rolling.read_bytes()
    assert set(transfer.unpack(toy_world / "pack0").values()) == {"here and further"}
    assert rolling.read_bytes() == further
    rolling.unlink()
    for number in range(2):
        assert set(transfer.unpack(toy_world / f"pack{number}").values()) == {"new"}
    assert rolling.read_bytes() == further


def test_there_must_be_something_to_export_and_an_empty_place(toy_world, capsys):
    assert cli.main(["export", str(toy_world / "pack"), "st"]) == 1
    assert "nothing to export" in capsys.readouterr().err
    toy.write_sheets(toy_world / "full")
    with pytest.raises(ReproError, match="expected an empty or a new folder"):
        transfer.pack({"data/x": paths.ROOT / "README.md"}, toy_world / "full")


def test_images_travel_to_a_machine_without_a_network(machine):
    place = machine("online")
    parts = toy.parts()
    images.write_cache("cifar10", parts)
    assert cli.main(["export", str(place / "pack"), "st", "--with-images"]) == 0
    machine("offline")
    assert cli.main(["import", str(place / "pack")]) == 0
    np.testing.assert_array_equal(images.load("cifar10", "test").images, parts["test"][0])
