"""What was stored once opens for ever; a kind of dataset may grow."""

import shutil

import numpy as np
import pytest

from logit_distributions import images, store
from logit_distributions.errors import ReproError
from logit_distributions.make.checkpoint import Checkpoint
from logit_distributions.store import places, schema
from tests.test_store import dataset

OLD = sorted(path for path in (places.ROOT / "tests" / "stored").iterdir() if path.is_dir())


@pytest.mark.parametrize("folder", OLD, ids=lambda path: path.name)
@pytest.mark.parametrize("kind", [*schema.KINDS, "checkpoints", "images"])
def test_a_file_of_each_kind_opens_for_ever(kind, folder, tmp_path, monkeypatch):
    monkeypatch.setenv("REPRO_DATA", str(tmp_path))
    (path,) = (folder / kind).iterdir()
    copy = tmp_path / kind / path.name
    shutil.copytree(folder / kind, tmp_path / kind)
    assert store.validate(copy) == []
    if kind == "checkpoints":
        checkpoint = Checkpoint.load(copy)
        assert (checkpoint.run, checkpoint.epoch) == (copy.stem, 6)
        assert checkpoint.tensors["model.logits.bias"].shape == (10,)
    elif kind == "images":
        assert images.read_sheet(copy).shape == (10, 3, 32, 32)
    else:
        opened = store.open_dataset(copy, kind)
        assert opened.attrs["schema"] == "logit-distributions/1"
        assert opened.attrs["run"] == copy.stem


@pytest.fixture
def grown(monkeypatch):
    """The kind ``logits`` with a variable more than it had."""
    added = schema.Variable(("sample",), "f", "steps that fool it", since="2027-01-01")
    kinds = schema.KINDS | {"logits": schema.KINDS["logits"] | {"steps": added}}
    monkeypatch.setattr(schema, "KINDS", kinds)


def test_a_variable_that_was_added_may_be_missing(grown, tmp_path):
    store.write(dataset(), tmp_path / "old.nc")
    assert store.validate(tmp_path / "old.nc") == []
    new = dataset().assign(steps=("sample", np.zeros(12, np.float32)))
    store.write(new, tmp_path / "new.nc")
    assert store.validate(tmp_path / "new.nc") == []


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        (("sample", np.full(12, np.nan)), "steps: 12 values are NaN"),
        (("sample", np.zeros(12, int)), "steps: expected numbers of kind 'f'"),
        (("class", np.zeros(4)), "steps: expected dimensions"),
    ],
)
def test_where_it_is_there_it_is_checked(values, problem, grown, tmp_path):
    with pytest.raises(ReproError, match=problem):
        store.write(dataset().assign(steps=values), tmp_path / "new.nc")
