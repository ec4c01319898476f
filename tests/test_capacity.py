"""From images to capacities: balls, layers, projections, resuming."""

from __future__ import annotations

import dataclasses
import json
import re

import numpy as np
import pytest
import torch
from torch import nn

import manifold_capacity as mc
from logit_distributions import cli, images, layer_capacity, recipes, store
from logit_distributions.errors import ReproError
from logit_distributions.make import capacity as manifolds
from logit_distributions.make.checkpoint import Checkpoint
from logit_distributions.make.network import Guarded, ResNet18
from logit_distributions.make.options import Machine, Options
from logit_distributions.read import capacity
from logit_distributions.read.capacity import LAYERS
from logit_distributions.recipes import Manifolds
from logit_distributions.store import places
from tests import others, toy
from tests.conftest import STORED

TINY = Manifolds(exemplars=6, points=5, steps=2, n_t=40, draws=8, largest=64)
CPU = Options(Machine("cpu", "float32"), threads=1)


def own_network() -> nn.Module:
    """Return a network that is not ours."""
    torch.manual_seed(3)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(1800, 10)
    )


@pytest.fixture(scope="module")
def data() -> images.ImageSet:
    pixels, labels = toy.arrays(6, 2)
    return images.ImageSet(pixels, labels, np.arange(len(labels)), images.CIFAR10.classes, "0" * 64)


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(0)
    return ResNet18(10, 8).eval()


def test_exemplars_are_the_first_of_every_class():
    labels = np.array([1, 1, 1, 0, 2, 0, 2, 1, 0])
    assert manifolds.exemplars(labels, 3).tolist() == [0, 3, 4]
    assert manifolds.exemplars(labels, 5).tolist() == [0, 1, 3, 4, 5]
    assert manifolds.exemplars(labels, 3, 1).tolist() == [1, 5, 6]  # the second of every class
    with pytest.raises(ReproError, match="at least 10 images, got 9"):
        manifolds.exemplars(labels, 10)
    with pytest.raises(ReproError, match="at least 12 images, got 9"):
        manifolds.exemplars(labels, 4, 2)


@pytest.mark.parametrize("kind", ["adversarial", "random"])
def test_manifolds_stay_in_the_ball_and_the_box(kind, data, network):
    settings = dataclasses.replace(TINY, kind=kind, steps=4)
    chosen = manifolds.exemplars(data.labels, 6).tolist()
    by_name = dict(manifolds.manifolds(network, data, settings))
    assert list(by_name) == chosen
    for number, points in by_name.items():
        image = torch.from_numpy(data.images[number]).float() / 255
        assert points.shape == (5, 3, 32, 32)
        assert (points - image).abs().max() <= settings.eps + 1e-6
        assert points.min() >= 0
        assert points.max() <= 1
        assert len({tuple(each.flatten().tolist()) for each in points}) == 5


def test_adversarial_points_cost_more_than_random_ones(data, network):
    def loss(kind):
        settings = dataclasses.replace(TINY, kind=kind, steps=5)
        losses = []
        for i, points in manifolds.manifolds(network, data, settings):
            labels = torch.full((5,), int(data.labels[i]))
            with torch.no_grad():
                losses.append(nn.functional.cross_entropy(network(points), labels).item())
        return losses

    assert all(a > r for a, r in zip(loss("adversarial"), loss("random"), strict=True))


def test_class_manifolds_are_clean_images(data, network):
    settings = dataclasses.replace(TINY, kind="class")
    by_name = dict(manifolds.manifolds(network, data, settings))
    assert list(by_name) == list(range(10))
    expected = data.images[np.flatnonzero(data.labels == 3)[:5]]
    np.testing.assert_array_equal((255 * by_name[3]).round().numpy(), expected)
    with pytest.raises(ReproError, match="class 0: expected 7 images, got 6"):
        next(manifolds.manifolds(network, data, dataclasses.replace(settings, points=7)))


def test_draws_depend_on_seed_and_exemplar_alone(data, network):
    random = dataclasses.replace(TINY, kind="random")
    first = dict(manifolds.manifolds(network, data, random))
    fewer = dict(manifolds.manifolds(nn.Identity(), data, dataclasses.replace(random, exemplars=4)))
    other = dict(manifolds.manifolds(network, data, dataclasses.replace(random, seed=1)))
    shared = sorted(set(first) & set(fewer))
    assert len(shared) >= 3
    for number in shared:
        torch.testing.assert_close(first[number], fewer[number], rtol=0, atol=0)
        assert not torch.equal(first[number], other[number])


def test_layers_are_recorded_in_order_and_as_they_are(data, network):
    wide = dataclasses.replace(TINY, largest=10_000)
    points = [torch.rand(7, 3, 32, 32) for _ in range(2)]
    activations, sizes = manifolds.activations(network, points, LAYERS, wide, batch=3)
    assert tuple(activations) == LAYERS
    expected = [3072] + 3 * [8192] + 2 * [4096] + 2 * [2048] + 2 * [1024] + [64, 10]
    assert [sizes[name] for name in LAYERS] == expected
    assert [activations[name].shape for name in LAYERS] == [(2, size, 7) for size in expected]
    with torch.no_grad():
        at = points[1]
        np.testing.assert_array_equal(activations["input"][1], at.flatten(1).T)
        for stage in ResNet18.STAGES[:3]:
            at = network.get_submodule(stage)(at)
        np.testing.assert_allclose(activations["layer1.1"][1], at.flatten(1).T, atol=1e-5)
        np.testing.assert_allclose(activations["logits"][1], network(points[1]).T, atol=1e-5)
    assert not any(module._forward_hooks for module in network.modules())


def test_layers_that_work_in_place_are_kept_as_they_were():
    model = own_network()
    points = [torch.rand(2, 3, 32, 32)]
    activations, _ = manifolds.activations(model, points, ("0", "1"), TINY)
    plain, _ = manifolds.activations(model, points, ("0",), TINY)
    np.testing.assert_array_equal(activations["0"], plain["0"])
    wide = dataclasses.replace(TINY, largest=10_000)
    kept, _ = manifolds.activations(model, points, ("0", "1"), wide)
    assert kept["0"].min() < 0 <= kept["1"].min()


def test_a_layer_that_is_not_there_is_named(data):
    with pytest.raises(ReproError, match="no layer 'layer9' in Sequential: expected names"):
        manifolds.activations(own_network(), [torch.rand(1, 3, 32, 32)], ["layer9"], TINY)

    class Lazy(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.unused = nn.Flatten(), nn.Flatten()

        def forward(self, x):
            return self.used(x)

    with pytest.raises(ReproError, match="layer 'unused' was not called"):
        manifolds.activations(Lazy(), [torch.rand(1, 3, 4, 4)], ["used", "unused"], TINY)


def test_projection_is_keyed_by_seed_and_keeps_geometry():
    features = torch.randn(30, 4000)
    one, same, other = (manifolds.Projection(1500, seed)(features) for seed in (0, 0, 1))
    torch.testing.assert_close(one, same, rtol=0, atol=0)
    assert not torch.equal(one, other)
    assert one.shape == (30, 1500)
    lengths = (one**2).sum(1) / (features**2).sum(1)
    assert lengths.mean() == pytest.approx(1, abs=0.03)
    assert lengths.std() < 2 * (2 / 1500) ** 0.5
    few = torch.randn(4, 1500)
    assert manifolds.Projection(1500, 0)(few) is few


def test_the_order_in_memory_changes_no_bit():
    """As it once did: the rows of one pass lay as columns in the other."""
    points = np.random.default_rng(0).standard_normal((6, 40, 5)).astype(np.float32)
    points[0, 0] += 3
    reference = capacity.measure(points, TINY)
    for axes in ([0, 2, 1], [1, 0, 2], [2, 1, 0]):
        other = np.ascontiguousarray(points.transpose(axes)).transpose(np.argsort(axes))
        assert not other.flags.c_contiguous
        assert capacity.measure(other, TINY).identical(reference)


def test_capacity_survives_the_projection():
    points = np.random.default_rng(0).standard_normal((20, 3000, 1)) + (
        0.5 * np.random.default_rng(1).standard_normal((20, 3000, 12))
    )
    project = manifolds.Projection(1000, 0)
    seen = np.stack([project(torch.from_numpy(each.T).float()).numpy().T for each in points])
    settings = Manifolds(n_t=200, draws=20)
    exact, projected = (capacity.measure(each, settings) for each in (points, seen))
    for name in ("combined_capacity", "conic_capacity", "simulated_capacity"):
        assert float(projected[name]) == pytest.approx(float(exact[name]), rel=0.1)


@pytest.fixture
def cached(tmp_path, monkeypatch):
    monkeypatch.setenv("REPRO_CACHE", str(tmp_path))
    return tmp_path


def test_analysis_is_resumed_layer_by_layer(cached, data, network, monkeypatch):
    layers = ("input", "stem", "pool")
    whole = manifolds.analyse(network, data, TINY, "toy", CPU, layers)
    files = sorted(cached.rglob("*.nc"))
    assert [file.stem for file in files] == sorted(layers)
    files[-1].unlink()
    measured = []
    measure = capacity.measure
    monkeypatch.setattr(manifolds, "measure", lambda *a: (measured.append(1), measure(*a))[1])
    again = manifolds.analyse(
        network, data, TINY, "toy", dataclasses.replace(CPU, threads=2), layers
    )
    assert len(measured) == 1
    timed = ["seconds", "seconds_activations"]
    assert again.drop_vars(timed).equals(whole.drop_vars(timed))
    manifolds.analyse(network, data, dataclasses.replace(TINY, seed=1), "toy", CPU, layers)
    assert len(measured) == 4


def test_result_is_a_valid_dataset(cached, data, network):
    measured = manifolds.analyse(network, data, TINY, "toy", CPU, ("input", "pool"))
    measured = measured.assign_attrs(
        kind="capacity", run="toy", method="given", dataset="given", data_sha256=data.sha256,
        recipe="{}", recipe_hash="0", seed=0, scale="given", **store.provenance(),
    )  # fmt: skip
    path = cached / "capacity.nc"
    store.write(measured, path)
    read = store.open_dataset(path, "capacity")
    assert read["layer"].values.tolist() == ["input", "pool"]
    assert read["exemplar"].values.tolist() == manifolds.exemplars(data.labels, 6).tolist()
    assert read["features"].values.tolist() == [3072, 64]
    np.testing.assert_allclose(
        capacity.combined(read["capacity"].values), read["combined_capacity"], rtol=1e-6
    )
    measured["capacity"][0, 0] = -1
    measured["conic_capacity"][0] = 99
    with pytest.raises(ReproError, match="capacity: 1 values are not positive; conic_capacity: 1"):
        store.write(measured, path)


# Real networks


def test_stored_images_have_their_labels():
    data = images.stored("cifar10")
    assert len(data) == 1000
    assert [data.classes[label] for label in data.labels[:3]] == ["cat", "ship", "ship"]


def test_a_layer_measured_again_agrees(cached):
    run = "cifar10-small-at-seed0"
    checkpoint = Checkpoint.load(STORED / "checkpoints" / f"{run}.safetensors")
    tiny = dataclasses.replace(TINY, largest=2048, exemplars=8)
    data = images.stored("cifar10")
    first = manifolds.analyse(checkpoint.model(10), data, tiny, run, CPU)
    first = first.assign_attrs(checkpoint.attributes("capacity", data))
    assert not list(store.faults(first.assign_attrs(schema=store.SCHEMA, content_sha256="")))[1:]
    again, unprojected = manifolds.again(first, checkpoint, "layer2.1")
    was = first.sel(layer="layer2.1")
    for name in ("capacity", "radius", "dimension", "simulated_features", "conic_dimensions"):
        np.testing.assert_array_equal(again[name], was[name])
        assert not np.array_equal(again[name], unprojected[name])
    assert float(unprojected["combined_capacity"]) == pytest.approx(
        float(again["combined_capacity"]), rel=0.05
    )


def test_the_guarded_rule_keeps_centres_that_the_packages_annihilates():
    """At a late layer of the stored AT network the package's rule gives radii over a thousand."""
    checkpoint = Checkpoint.load(STORED / "checkpoints" / "cifar10-small-at-seed0.safetensors")
    settings = Manifolds(kind="class")
    model, data = checkpoint.model(10), images.stored("cifar10")
    points = (each for _, each in manifolds.manifolds(model, data, settings))
    layers, _ = manifolds.activations(model, points, ["layer3.1"], settings)
    for each in layers.values():
        conic = mc.conic_capacity(each - each.mean(axis=(0, 2), keepdims=True), draws=5).capacity
        theory, raw = (
            mc.mean_field_capacity(each, n_t=50, low_rank=rule) for rule in ("guarded", False)
        )
        assert theory.center_kept.min() > 0.1
        assert theory.radius.max() < 10
        gaps = [abs(np.log(one.combined_capacity / conic)) for one in (theory, raw)]
        assert gaps[0] < gaps[1]


def test_every_estimator_is_the_kernel_on_its_points():
    points = np.random.default_rng(2).standard_normal((8, 60, 6)) + 1.5
    settings = Manifolds(n_t=30, draws=10, seed=4)
    measured = capacity.measure(points, settings)
    centred = points - points.mean(axis=(0, 2), keepdims=True)
    conic, glue = (f(centred, 10, seed=4) for f in (mc.conic_capacity, mc.glue))
    for end in ("", "_low", "_high"):
        name = f"conic_capacity{end}"
        assert float(measured[name]) == pytest.approx(float(conic[f"capacity{end}"]), rel=1e-12)
    for name in capacity.GLUE:
        assert float(measured[f"glue_{name}"]) == float(glue[name])
    for rule, start in (("guarded", "guarded"), (False, "raw")):
        theory = mc.mean_field_capacity(points, n_t=30, low_rank=rule, seed=4)
        assert float(measured[f"{start}_capacity"]) == theory.combined_capacity
    radius = mc.mean_field_capacity(points, n_t=30, seed=4).radius
    np.testing.assert_allclose(measured["guarded_radius"], radius, rtol=1e-6)


def test_a_manifold_left_hardly_a_centre_does_not_count():
    points = np.random.default_rng(2).standard_normal((8, 60, 6)) + 1.5
    measured = capacity.measure(points, Manifolds(n_t=30, draws=10))
    flagged = measured.copy(deep=True)
    flagged["center_kept"][3] = 1e-5
    others = np.delete(measured["capacity"].values.astype(float), 3)
    estimates = capacity.estimates(flagged)
    assert estimates["theory"].value == pytest.approx(len(others) / (1 / others).sum())
    assert estimates["guarded"] == capacity.estimates(measured)["guarded"]
    assert (capacity.row("x", flagged).left_out, capacity.row("x", measured).left_out) == (1, 0)
    before = measured.drop_vars(["center_kept", "guarded_capacity"])  # a file of another day
    assert capacity.estimates(before)["theory"] == capacity.estimates(measured)["theory"]
    assert not np.isfinite(capacity.estimates(before)["guarded"].value)
    none = flagged.assign(center_kept=0 * flagged["center_kept"])
    assert not capacity.estimates(none)["theory"].known


def test_settings_of_what_is_stored_are_the_default_ones():
    files = sorted((STORED / "capacity").glob("*.nc"))
    assert len(files) >= len(recipes.FIGURE5)
    for file in files:
        dataset = store.open_dataset(file, "capacity")
        attributes = dataset.attrs
        assert manifolds.manifold_settings(dataset) == dataclasses.asdict(Manifolds())
        assert re.fullmatch("[0-9a-f]{64}", attributes["checkpoint_sha256"])


def test_stored_capacities_are_of_the_stored_weights():
    for file in sorted((places.data() / "checkpoints").glob("*.safetensors")):
        measured = STORED / "capacity" / f"{file.stem}.nc"
        if measured.exists():
            stored = store.open_dataset(measured).attrs["checkpoint_sha256"]
            assert Checkpoint.load(file).weights_sha256 == stored


@pytest.mark.parametrize(("suffix", "form"), [(".safetensors", "npz"), (".pt", "folder")])
def test_anybodys_network_is_measured(suffix, form, place, capsys):
    output = place / "mine.nc"
    arguments = [
        "capacity", "--checkpoint", others.weights(place, suffix),
        "--images", others.pictures(place, form),
        "--model", "tests.others:own_network", "--exemplars", "5", "--points", "4",
        "--draws", "6", "--output", output, "--threads", "2",
    ]  # fmt: skip
    assert cli.main([*map(str, arguments)]) == 0, capsys.readouterr().err
    printed = capsys.readouterr().out
    stored = store.open_dataset(output, "capacity")
    assert stored["layer"].values.tolist() == ["input", "0", "1", "2", "3"]
    assert dict(stored.sizes) == {"layer": 5, "manifold": 5, "draw": 6}
    assert "mine: adversarial manifolds, P = 5, M = 4" in printed
    assert str(output) in printed


# A network in memory

QUIET = {"threads": 1, "progress": False}


class Blocks(nn.Module):
    """Returns tuples, uses a layer twice, has one it never calls, and one of another order."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 4, stride=4)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.shared = nn.ReLU()
        self.sequence_first = nn.Linear(8, 8)
        self.unused = nn.Linear(2, 2)
        self.head = nn.Linear(8, 10)

    def forward(self, images):
        tokens = self.shared(self.stem(images)).flatten(2).transpose(1, 2)
        mixed, _ = self.attention(tokens, tokens, tokens)
        turned = self.sequence_first(mixed.transpose(0, 1)).transpose(0, 1)
        return self.head(self.shared(turned).mean(1))


@pytest.fixture
def blocks():
    torch.manual_seed(0)
    return Blocks().eval()


@pytest.fixture
def pixels(data):
    return torch.from_numpy(data.images).float().div(255), torch.from_numpy(data.labels)


def test_layers_that_cannot_be_measured_are_left_out_with_a_word(blocks, pixels, place):
    with pytest.warns(UserWarning, match="Blocks: layers are left out") as said:
        measured = layer_capacity(blocks, *pixels, manifolds=TINY, **QUIET)
    assert measured["layer"].values.tolist() == ["input", "stem", "head"]
    line = (
        "layers are left out: attention returns several tensors; shared is called more than once; "
        "sequence_first returns a tensor of shape (64, 3, 8) for 3 images; unused is not called"
    )
    assert [str(each.message) for each in said] == [f"Blocks: {line}"]
    assert json.loads(measured.attrs["remarks"]) == [line]
    store.write(measured, place / "mine.nc")
    assert store.open_dataset(place / "mine.nc", "capacity").attrs["run"] == "Blocks"
    assert not (place / "manifolds").exists()


def test_of_a_named_module_that_returns_several_the_first_counts(blocks, pixels):
    measured = layer_capacity(
        blocks, *pixels, layers=["attention"], kind="random", manifolds=TINY, **QUIET
    )
    assert measured["features"].values.tolist() == [64 * 8]
    assert measured.attrs["manifold_kind"] == "random"


@pytest.mark.parametrize(
    ("layer", "line"),
    [
        ("shared", "layer 'shared' is called more than once; choose another"),
        ("unused", "layer 'unused' is not called; choose another"),
        (
            "sequence_first",
            "layer 'sequence_first' returns a tensor of shape (64, 3, 8) for 3 images; choose "
            "another",
        ),
        (
            "nothing",
            "no layer 'nothing' in Blocks: expected names of its modules, such as stem, attention, "
            "attention.out_proj, shared, sequence_first, unused, head",
        ),
    ],
)
def test_layers_that_cannot_be_measured_are_refused_by_name(layer, line, blocks, pixels):
    with pytest.raises(ReproError) as refused:
        layer_capacity(blocks, *pixels, layers=["stem", layer], manifolds=TINY, **QUIET)
    assert str(refused.value) == line


def test_layer_capacity_is_that_of_the_stage(network, data, pixels, cached):
    layers = ("input", "pool")
    stage = manifolds.analyse(network, data, TINY, "toy", CPU, layers)
    measured = layer_capacity(network, *pixels, layers=layers, manifolds=TINY, **QUIET)
    for name in ("capacity", "radius", "dimension", "simulated_features"):
        np.testing.assert_allclose(measured[name], stage[name], rtol=1e-5)


def test_without_labels_the_predictions_are_attacked(network, pixels):
    with torch.no_grad():
        predicted = network(pixels[0]).argmax(1)
    some = {"layers": ["pool"], "manifolds": TINY, **QUIET}
    measured = layer_capacity(network, pixels[0], **some)
    expected = layer_capacity(network, pixels[0], predicted, **some)
    np.testing.assert_array_equal(measured["exemplar"], expected["exemplar"])
    np.testing.assert_allclose(measured["capacity"], expected["capacity"], rtol=1e-5)


def test_too_few_images_are_refused_before_anything_is_attacked(network, pixels):
    with pytest.raises(ReproError) as refused:
        layer_capacity(network, pixels[0][:3], pixels[1][:3], manifolds=TINY)
    assert str(refused.value) == "expected at least 6 images, got 3; ask for fewer"


def test_what_is_unfinished_is_of_what_the_network_computes(cached, data, network):
    def folder(scale):
        return manifolds._unfinished(Guarded(Scaled(network, scale).eval()), data, TINY, "a", ())

    assert folder(1.0) == folder(1.0) != folder(2.0)


class Scaled(nn.Module):
    """Multiplies the logits by a number that is in no state dict."""

    def __init__(self, inner, scale):
        super().__init__()
        self.inner, self.scale = inner, scale

    def forward(self, images):
        return self.scale * self.inner(images)


REFUSED = {
    ("--dataset", "cifar10", "--images", "{place}"): "--dataset: does not apply beside --images, "
    "which are yours",
    ("--dataset", "mnist"): "unknown data set 'mnist': expected one of cifar10, cifar100",
    ("--seed", "1"): "--seed: does not apply to --checkpoint",
    ("--kind", "class", "--exemplars", "5"): "--exemplars: does not apply to manifolds of kind "
    "class",
    ("--kind", "class", "--eps", "0.1"): "--eps: does not apply to manifolds of kind class",
    ("--eps", "8"): "--eps: expected a length in (0, 1], got 8.0; 8/255 is usual",
    ("--output", "{place}"): "--output {place}: expected a file, got a folder",
    ("--exemplars", "1001"): "expected at least 1001 images, got 1000; ask for fewer",
    ("--layers", "stem"): "no layer 'stem' in Sequential: expected names of its modules, such as "
    "0, 1, 2, 3",
    ("--device", "gpu"): "unknown device 'gpu': expected cpu, cuda or cuda:N",
}


@pytest.mark.parametrize("more", REFUSED, ids=" ".join)
def test_what_capacity_refuses_is_one_line_before_it_begins(more, place, capsys, monkeypatch):
    monkeypatch.setattr(manifolds, "manifolds", None)
    path = others.weights(place, ".pt")
    arguments = ["capacity", "--checkpoint", str(path), "--model", "tests.others:own_network"]
    assert cli.main([*arguments, *(each.format(place=place) for each in more)]) == 1
    line = REFUSED[more].format(place=place)
    assert capsys.readouterr().err == f"logitdist: error: {line}\n"
