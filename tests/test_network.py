import pytest
import torch
from torchvision.models import resnet18

from logit_distributions import cli
from logit_distributions.errors import ReproError
from logit_distributions.make.network import ResNet18, build, frozen, state_of
from tests import others


def test_is_torchvisions_resnet18_with_a_cifar_stem():
    ours, theirs = ResNet18(10, 64), resnet18(num_classes=10)
    count = sum(p.numel() for p in ours.parameters())
    stem = 64 * 3 * (7 * 7 - 3 * 3)
    assert count == sum(p.numel() for p in theirs.parameters()) - stem
    theirs.conv1, theirs.maxpool = ours.stem[0], torch.nn.Identity()
    theirs.bn1 = ours.stem[1]
    for number in (1, 2, 3, 4):
        setattr(theirs, f"layer{number}", getattr(ours, f"layer{number}"))
    theirs.fc = ours.logits
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    reference = theirs.eval()(ours.normalise(images))
    torch.testing.assert_close(ours.eval()(images), reference)


def test_stages_have_the_expected_shapes():
    model = ResNet18(7, 8).eval()
    shapes, x = {}, torch.rand(2, 3, 32, 32)
    for stage in model.STAGES:
        x = model.get_submodule(stage)(x)
        shapes[stage] = tuple(x.shape[1:])
    assert shapes["stem"] == shapes["layer1"] == (8, 32, 32)
    assert shapes["layer2"] == (16, 16, 16)
    assert shapes["layer4"] == (64, 4, 4)
    assert shapes["pool"] == (64,)
    assert shapes["logits"] == (7,)


@pytest.mark.parametrize("width", [0, 4, 12, -8])
def test_unsafe_widths_are_refused(width):
    with pytest.raises(ReproError, match="positive multiple of 8"):
        ResNet18(10, width)


def test_frozen_computes_the_same_and_leaves_the_model_alone():
    torch.manual_seed(0)
    model = ResNet18(10, 8)
    model.train()(torch.rand(32, 3, 32, 32))  # running statistics that differ from the start
    before = {name: value.clone() for name, value in model.state_dict().items()}
    images = torch.rand(4, 3, 32, 32)
    folded = frozen(model)
    assert model.training
    assert not folded.training
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in folded.modules())
    torch.testing.assert_close(folded(images), model.eval()(images), atol=1e-5, rtol=1e-5)
    images.requires_grad_()
    (ours,) = torch.autograd.grad(folded(images).square().sum(), images)
    (reference,) = torch.autograd.grad(model(images).square().sum(), images)
    torch.testing.assert_close(ours, reference, atol=1e-5, rtol=1e-4)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


@pytest.mark.parametrize(("channels", "channels_last"), [(8, True), (6, False)])
def test_networks_of_odd_widths_are_kept_from_channels_last(channels, channels_last):
    inner = torch.nn.Conv2d(3, channels, 3)
    model = frozen(torch.nn.Sequential(torch.nn.Identity(), inner))
    seen = []
    model[0].register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    images = torch.rand(2, 3, 8, 8).contiguous(memory_format=torch.channels_last)
    found = model(images)
    assert seen[0].is_contiguous(memory_format=torch.channels_last) == channels_last
    torch.testing.assert_close(found, inner(images.contiguous()))


@pytest.mark.parametrize("name", ["resnet18", "resnet34", "resnet50", "wide_resnet50_2"])
def test_other_networks_take_small_images_and_are_folded(name):
    torch.manual_seed(0)
    model = build(name, 7, 8).eval()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.uniform_(-0.1, 0.1)
            module.running_var.uniform_(0.8, 1.2)
    sizes = []
    for module in model.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_hook(lambda _, __, output: sizes.append(output.shape[-1]))
    images = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        logits = model(images)
        assert (sizes[0], sizes[-1]) == (32, 4)
        attacked = frozen(model)
        torch.testing.assert_close(attacked(images), logits, rtol=1e-4, atol=1e-4)
    assert logits.shape == (2, 7)
    folded = [m for m in attacked.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert not folded


def test_networks_of_timm():
    pytest.importorskip("timm", reason="timm, which is optional, is not installed")
    assert build("timm:resnet10t", 7)(torch.rand(2, 3, 32, 32)).shape == (2, 7)


@pytest.mark.parametrize("name", ["vgg11", "resnet19", "no:resnet18", "vit_b_16"])
def test_other_kinds_of_network_are_refused(name):
    with pytest.raises(ReproError, match=f"network '{name}': expected resnet18 or another ResNet"):
        build(name, 10)


@pytest.mark.parametrize(
    ("model", "problem"),
    [
        ("tests.others:nothing", "expected MODULE:FUNCTION"),
        ("tests.others", "expected MODULE:FUNCTION"),
        ("tests.toy:spec", "expected a torch module, got Spec"),
        ("torch.nn:Identity", "weights do not fit the network"),
        (None, "expected --model MODULE:FUNCTION beside it"),
    ],
)
def test_what_is_wrong_with_a_network_is_one_line(model, problem, place, capsys):
    more = ["--model", model] if model else []
    path = str(others.weights(place, ".safetensors"))
    images_of = str(others.pictures(place, "npz"))
    assert cli.main(["capacity", "--checkpoint", path, "--images", images_of, *more]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert problem in error


def test_weights_that_are_none_are_refused(place):
    (place / "no.pt").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    with pytest.raises(ReproError, match="weights-only"):
        state_of(place / "no.pt")
