import argparse
import os
import sys

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torchvision.models import resnet18

from logit_distributions.errors import ReproError
from logit_distributions.make.network import (
    Guarded,
    ResNet18,
    attackable,
    build,
    built,
    frozen,
    load,
    state_of,
)


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
    logits = model(images)
    assert seen[0].is_contiguous(memory_format=torch.channels_last) == channels_last
    torch.testing.assert_close(logits, inner(images.contiguous()))


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


# Networks of others


class View(torch.nn.Module):
    """Takes a view of a convolution's output, and normalises in place."""

    def __init__(self):
        super().__init__()
        self.convolution = torch.nn.Conv2d(3, 8, 3, stride=4)
        self.linear = torch.nn.Linear(512, 10)

    def forward(self, images):
        return self.linear(self.convolution(images.sub_(0.5).div_(0.25)).view(len(images), -1))


class Swapped(torchvision.models.resnet.BasicBlock):
    """Has the names of a known block, but normalises after the nonlinearity."""

    def forward(self, x):
        return self.bn2(self.relu(self.conv2(self.bn1(self.relu(self.conv1(x))))))


class Twice(torch.nn.Module):
    """Uses a layer that would be folded without its normalisation, too."""

    def __init__(self):
        super().__init__()
        self.pair = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8))

    def forward(self, images):
        return (self.pair(images) + self.pair[0](images)).mean((2, 3))


def resnet(norm=None, block=None):
    if block is not None:
        return torchvision.models.ResNet(block, [1, 1, 1, 1], num_classes=10)
    return resnet18(num_classes=10, norm_layer=norm)


FOREIGN = {
    "group norm": lambda: resnet(lambda c: torch.nn.GroupNorm(8, c)),
    "instance norm": lambda: resnet(torch.nn.InstanceNorm2d),
    "no norm": lambda: resnet(lambda c: torch.nn.Identity()),
    "batch statistics": lambda: resnet(
        lambda c: torch.nn.BatchNorm2d(c, track_running_stats=False)
    ),
    "another order": lambda: resnet(block=Swapped),
    "a layer used twice": Twice,
    "a view of a convolution": View,
    "data parallel": lambda: torch.nn.DataParallel(View()),
    "compiled": lambda: torch.compile(Twice(), backend="eager"),
    "its own resize layer": lambda: torch.nn.Sequential(torch.nn.Upsample(48), View8()),
}


class View8(View):
    """Has the same for images of 48 x 48 pixels."""

    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(1152, 10)


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # of torch's compiler
@pytest.mark.parametrize("name", FOREIGN)
def test_what_is_attacked_computes_what_was_given(name):
    torch.manual_seed(0)
    model = FOREIGN[name]()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d) and module.running_var is not None:
            module.running_mean.uniform_(-1, 1)
            module.running_var.uniform_(0.2, 3)
    model.eval()
    images = torch.rand(3, 3, 64 if name in ("instance norm", "batch statistics") else 32, 64)
    images = images[..., : images.shape[2]]
    before = images.clone()
    with torch.no_grad():
        expected = model(images.clone())
        last = images.contiguous(memory_format=torch.channels_last)
        attacked = attackable(Guarded(model), last)
        torch.testing.assert_close(attacked(last), expected, rtol=1e-4, atol=1e-4)
    assert torch.equal(images, before)
    leaf = last.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(frozen(attacked)(leaf).sum(), leaf)
    assert gradient.abs().sum() > 0


def test_known_networks_are_folded_and_others_attacked_as_they_are():
    images = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        folded = attackable(Guarded(ResNet18(10, 8).eval()), images)
        assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in folded.modules())
        model = Guarded(FOREIGN["a view of a convolution"]().eval())
        assert attackable(model, images) is model
        assert frozen(model) is model


CLASSES = 10


def constant_network():
    """Return a network with constants of a normalisation among its buffers."""
    model = torch.nn.Sequential(
        torch.nn.Identity(), torch.nn.Conv2d(3, 8, 3, stride=2), torch.nn.BatchNorm2d(8),
        torch.nn.Flatten(), torch.nn.Linear(1800, CLASSES),
    )  # fmt: skip
    model[0].register_buffer("mu", torch.full((3, 1, 1), 0.5))
    model[0].register_buffer("sigma", torch.full((3, 1, 1), 0.25))
    return model


FACTORY = "tests.test_network:constant_network"


def state():
    torch.manual_seed(4)
    return {name: torch.randn_like(each.float()).abs().to(each.dtype)
            for name, each in constant_network().state_dict().items()}  # fmt: skip


def prefixed(prefix):
    return {f"{prefix}{name}": each for name, each in state().items()}


FORMATS = {
    "bare": state,
    "state_dict": lambda: {"state_dict": state(), "epoch": 3, "err": 0.1},
    "model_state_dict": lambda: {"model_state_dict": state(), "optimizer": {"state": {}}},
    "model": lambda: {"model": state()},
    "net": lambda: {"net": state(), "acc": 93.1},
    "ema": lambda: {"ema": prefixed("module.")},
    "parallel": lambda: prefixed("module."),
    "compiled": lambda: prefixed("_orig_mod."),
    "parallel and compiled": lambda: {"net": prefixed("module._orig_mod.")},
    "wrapped": lambda: {"state_dict": prefixed("model.")},
    "averaged": lambda: {"n_averaged": torch.tensor(9), **prefixed("module.")},
    "a list of one": lambda: {"state_dict": [state()], "err": 0.2},
    "without constants": lambda: {k: v for k, v in state().items() if not k.startswith("0.")},
}


@pytest.mark.parametrize("name", FORMATS)
def test_weights_are_found_in_whatever_they_are_wrapped(name, tmp_path):
    torch.save(FORMATS[name](), tmp_path / "mine.pt")
    model = load(tmp_path / "mine.pt", FACTORY)
    assert not model.training
    for key, tensor in state().items():
        expected = (
            constant_network().state_dict()[key]
            if name.endswith("constants") and key[0] == "0"
            else tensor
        )
        assert torch.equal(model.state_dict()[key], expected), key


@pytest.mark.parametrize("prefix", ["", "module.", "model."])
def test_safetensors_are_read_too(prefix, tmp_path):
    save_file(prefixed(prefix), tmp_path / "mine.safetensors")
    model = load(tmp_path / "mine.safetensors", FACTORY)
    assert all(torch.equal(model.state_dict()[key], each) for key, each in state().items())


def test_names_fit_a_network_that_is_wrapped_itself(tmp_path):
    torch.save(state(), tmp_path / "mine.pt")
    model = load(tmp_path / "mine.pt", "tests.test_network:parallel_network")
    assert torch.equal(model.module[1].weight, state()["1.weight"])


def parallel_network():
    return torch.nn.DataParallel(constant_network())


def without(*names):
    return {name: each for name, each in state().items() if name not in names}


def with_bad(name, value):
    changed = state()
    changed[name][0] = value
    return changed


class Code:
    """Is pickled as a call of a function."""

    def __reduce__(self):
        return (os.system, ("true",))


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (
            without("1.weight", "2.running_var"),
            f"weights do not fit the network of {FACTORY}: missing: 1.weight, 2.running_var",
        ),
        (
            without("1.weight", "1.bias", "2.weight", "2.bias", "4.bias"),
            f"weights do not fit the network of {FACTORY}: missing: 1.weight, 1.bias, 2.weight and "
            "2 more",
        ),
        (
            {**state(), "5.weight": torch.ones(2)},
            f"weights do not fit the network of {FACTORY}: unexpected: 5.weight",
        ),
        (
            {**without("2.bias"), "4.weight": torch.ones(100, 1800), "5.bias": torch.ones(1)},
            f"weights do not fit the network of {FACTORY}: missing: 2.bias; unexpected: 5.bias; of "
            "another shape: 4.weight (100, 1800), expected (10, 1800)",
        ),
        (
            with_bad("4.bias", torch.nan),
            "expected finite weights, got NaN or infinity in 4.bias; likely saved after the "
            "training had diverged",
        ),
        (
            {"state_dict": [state(), state()]},
            "expected the weights of one network, got those of 2; save the state dict of one",
        ),
        (
            {"state_dict": [[]]},
            "expected the weights of one network, got those of 0; save the state dict of one",
        ),
        (
            torch.ones(3),
            "expected a state dict, names and tensors, got Tensor; save model.state_dict()",
        ),
        (
            {"epoch": 3, "loss": 0.1},
            "expected a state dict, names and tensors, got epoch, loss",
        ),
        ({}, "expected a state dict, names and tensors, got nothing"),
        (
            {"state_dict": state(), "args": argparse.Namespace(lr=0.1)},
            "expected weights alone, got code (argparse.Namespace); it is not opened, as it could "
            "run anything: save model.state_dict()",
        ),
        (
            Code(),
            f"expected weights alone, got code ({os.name}.system); it is not opened, as it could "
            "run anything: save model.state_dict()",
        ),
        (
            torch.nn.Flatten(),
            "expected weights alone, got code (torch.nn.modules.flatten.Flatten); it is not "
            "opened, as it could run anything: save model.state_dict()",
        ),
    ],
)
def test_what_is_wrong_with_weights_is_one_line(content, line, tmp_path):
    torch.save(content, tmp_path / "mine.pt")
    with pytest.raises(ReproError) as refused:
        load(tmp_path / "mine.pt", FACTORY)
    assert str(refused.value) == f"{tmp_path / 'mine.pt'}: {line}"


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("cut.pt", "expected a state dict as safetensors or a weights-only .pt, got something else "
         "("),
        ("page.pt", "expected a state dict as safetensors or a weights-only .pt, got something "
         "else ("),
        ("page.safetensors", "expected weights as safetensors, got something else ("),
        ("none.pt", "no such file; expected weights as safetensors or .pt"),
    ],
)  # fmt: skip
def test_files_that_hold_no_weights_are_one_line(name, line, tmp_path):
    torch.save(state(), tmp_path / "whole.pt")
    (tmp_path / "cut.pt").write_bytes((tmp_path / "whole.pt").read_bytes()[:5000])
    for page in ("page.pt", "page.safetensors"):
        (tmp_path / page).write_text("<html>\nnot found\n</html>")
    with pytest.raises(ReproError) as refused:
        state_of(tmp_path / name)
    assert str(refused.value).startswith(f"{tmp_path / name}: {line}")
    assert "\n" not in str(refused.value)


FACTORIES = """
import torch

def raises():
    return torch.nn.Linear(3, 10) + 1

def exits():
    raise SystemExit("usage: train.py")

def needs(argument):
    return torch.nn.Flatten()

def none():
    pass

network = torch.nn.Flatten()
not_callable = 3
"""
EXPECTED = "expected a function without arguments that returns a network; it raised"


@pytest.mark.parametrize(
    ("function", "line"),
    [
        ("raises", f"{EXPECTED} TypeError: unsupported operand type(s) for +: 'Linear' and 'int' "
         "({file}, line 5)"),
        ("exits", f"{EXPECTED} SystemExit: usage: train.py ({{file}}, line 8)"),
        ("needs", f"{EXPECTED} TypeError: needs() missing 1 required positional argument: "
         "'argument'"),
        ("none", "expected a torch module, got NoneType"),
        ("nothing", "expected MODULE:FUNCTION, but mine ({file}) has no function 'nothing'"),
        ("not_callable", "expected MODULE:FUNCTION, but mine ({file}) has no function "
         "'not_callable'"),
        ("", "expected MODULE:FUNCTION, a function without arguments that returns a network"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_factory_is_one_line(function, line, tmp_path, monkeypatch):
    file = tmp_path / "mine.py"
    file.write_text(FACTORIES)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    with pytest.raises(ReproError) as refused:
        built(f"mine:{function}")
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    assert str(refused.value) == f"--model mine:{function}: " + line.replace("{file}", str(file))


def test_a_module_that_is_not_there_is_one_line():
    with pytest.raises(ReproError) as refused:
        built("no_such_module:network")
    assert str(refused.value) == (
        f"--model no_such_module:network: {EXPECTED} ModuleNotFoundError: No module named "
        "'no_such_module'"
    )
