"""The stored results against the stored networks: natural logits, and the attack again."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

from logit_distributions import images, plans, recipes, store
from logit_distributions.make import attack, network
from logit_distributions.make.augment import to_float
from logit_distributions.make.checkpoint import Checkpoint
from logit_distributions.store.files import sha256
from tests.conftest import STORED

NAMES = plans.TABLE2


def first_test_images() -> images.ImageSet:
    """Return the first 1,000 test images of CIFAR-10, stored as one PNG sheet."""
    with Image.open(STORED / "images" / "cifar10-test-first-1000.png") as sheet:
        rows = np.asarray(sheet)
    pixels = rows.reshape(-1, 32, 32, 3).transpose(0, 3, 1, 2)
    labels = _stored("st")["label"].values[: len(pixels)].astype(np.int64)
    spec = images.CIFAR10
    return images.ImageSet(
        np.ascontiguousarray(pixels), labels, np.arange(1000), spec.classes, spec.sha256["test"]
    )


def _stored(name: str, scale: str = "medium"):
    return store.open_dataset(STORED / "logits" / f"cifar10-{scale}-{name}-seed0.nc", "logits")


def _checkpoint(name: str, scale: str = "medium") -> Checkpoint:
    return Checkpoint.load(STORED / "checkpoints" / f"cifar10-{scale}-{name}-seed0.safetensors")


@pytest.mark.parametrize("name", NAMES)
def test_natural_logits_are_those_of_the_stored_network(name):
    checkpoint, dataset = _checkpoint(name), _stored(name)
    assert dataset.attrs["checkpoint_sha256"] == checkpoint.weights_sha256
    assert dataset.attrs["recipe_hash"] == checkpoint.recipe_hash
    assert dataset.attrs["data_sha256"] == images.CIFAR10.sha256["test"]
    computed = network.natural_logits(checkpoint.model(10), first_test_images().images, "cpu")
    reference = dataset["logits"].values[:1000]
    np.testing.assert_allclose(computed, reference, atol=1e-3, rtol=0)


@pytest.mark.parametrize("name", NAMES)
def test_the_attack_gives_the_stored_verdicts_again(name):
    dataset, data = _stored(name), first_test_images()
    assert dataset["index"].values[:1000].tolist() == list(range(1000))
    settings = recipes.Evaluation(**json.loads(dataset.attrs["evaluation"]))
    judged = attack.verdicts(
        _checkpoint(name).model(10),
        to_float(torch.from_numpy(data.images[:32])),
        torch.from_numpy(data.labels[:32]),
        torch.arange(32),
        settings,
    )
    np.testing.assert_array_equal(judged.robust.numpy(), dataset["robust"].values[:, :32])


def test_logits_by_epoch_end_in_the_evaluated_ones():
    records = {data.attrs["run"]: data for data in store.find("epochs", dataset="*")}
    assert len(records) >= 4
    for run, recorded in records.items():
        evaluated = store.path_of("logits", run)
        if not evaluated.exists():
            continue
        logits = store.open_dataset(evaluated)
        last = recorded.sel(epoch=logits.attrs["checkpoint_epoch"])
        attacked = np.flatnonzero(recorded["test"].values)[: logits.sizes["sample"]]
        last = last.isel(sample=attacked)
        np.testing.assert_array_equal(last["index"], logits["index"])
        two = np.sort(logits["logits"].values, 1)[:, -2:]
        for variable, column in (("largest", 1), ("second", 0)):
            np.testing.assert_allclose(last[variable], two[:, column], atol=1 / 128 + 1e-3, rtol=0)
        assert (last["prediction"] == logits["logits"].values.argmax(1)).mean() > 0.999


def test_verdicts_agree_with_the_official_implementation():
    count = 100
    data = first_test_images()
    judged = attack.verdicts(
        _checkpoint("at", "small").model(10),
        to_float(torch.from_numpy(data.images[:count])),
        torch.from_numpy(data.labels[:count]),
        torch.arange(count),
        recipes.Evaluation(engine="autoattack"),
    )
    official, ours = judged.robust[-1].numpy(), _stored("at", "small")["robust"].values[-1, :count]
    assert (official != ours).sum() <= 1


def test_every_stored_file_is_valid_and_registered():
    stored = [p for p in STORED.rglob("*") if p.suffix in (".nc", ".safetensors", ".png")]
    assert len(stored) > 20
    for file in stored:
        assert store.registry(file) == sha256(file), file
        if file.suffix == ".nc":
            assert store.validate(file) == []


def test_what_is_stored_stays_small():
    size = sum(p.stat().st_size for p in STORED.rglob("*") if p.is_file())
    assert size < 60e6
