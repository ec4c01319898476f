import dataclasses
import hashlib
import io
import pickle
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch

from logit_distributions import images
from logit_distributions.errors import ReproError
from logit_distributions.make.augment import PADDING, Epoch, crop_and_flip, to_float
from logit_distributions.store import places
from tests import naive, toy


def test_all_layouts_give_the_same_arrays(toy_world, toy_sheets, tmp_path):
    batches = tmp_path / "original"
    toy.write_batches(batches)
    tarball = tmp_path / "tar" / "cifar-10-python.tar.gz"
    tarball.parent.mkdir()
    with tarfile.open(tarball, "w:gz") as archive:
        archive.add(batches / "cifar-10-batches-py", "cifar-10-batches-py")
    spec = images.spec_of("cifar10")
    sources = (toy_sheets, batches, batches / "cifar-10-batches-py", tarball, tarball.parent)
    for source in sources:
        for part, (pixels, labels) in images.fetch(spec, source).items():
            reference_pixels, reference_labels = toy.parts()[part]
            np.testing.assert_array_equal(pixels, reference_pixels)
            np.testing.assert_array_equal(labels, reference_labels)


def test_shuffled_copies_of_a_set_ordered_by_content_give_the_same_arrays(toy_sheets):
    reference = {part: images.by_content(*both) for part, both in toy.parts().items()}
    spec = dataclasses.replace(
        toy.spec(),
        order="content",
        sha256={part: images.content_hash(*both) for part, both in reference.items()},
    )
    for part, (pixels, labels) in images.fetch(spec, toy_sheets).items():
        np.testing.assert_array_equal(pixels, reference[part][0])
        np.testing.assert_array_equal(labels, reference[part][1])
        order = np.random.default_rng(0).permutation(len(labels))
        again = images.by_content(pixels[order], labels[order])
        assert images.content_hash(*again) == spec.sha256[part]
    digests = [
        hashlib.sha256(image.tobytes() + bytes([label])).digest()
        for image, label in zip(*reference["test"], strict=True)
    ]
    assert digests == sorted(digests)


def test_cifar100_is_described_completely():
    spec = images.spec_of("cifar100")
    assert len(spec.classes) == 100
    assert list(spec.classes) == sorted(spec.classes)
    assert {len(digest) for digest in spec.sha256.values()} == {64}


def test_a_cached_copy_is_used_and_verified(toy_world, toy_sheets):
    spec = images.spec_of("cifar10")
    cached = places.cache() / "images" / "cifar10.npz"
    cached.parent.mkdir(parents=True)
    parts = images.fetch(spec, toy_sheets)
    arrays = {}
    for part, (pixels, labels) in parts.items():
        arrays |= {f"{part}_images": pixels, f"{part}_labels": labels}
    np.savez(cached, **arrays)
    assert len(images.load("cifar10", "test")) == 10 * toy.TEST
    arrays["test_images"] = arrays["test_images"].copy()
    arrays["test_images"][0, 0, 0, 0] ^= 1
    np.savez(cached, **arrays)
    images._fetched.cache_clear()  # as in another process
    with pytest.raises(ReproError, match="expected content SHA-256"):
        images.load("cifar10", "test")


def test_no_source_is_one_clear_error_and_leaves_no_cache(toy_world):
    with pytest.raises(ReproError, match="could not be had from any source") as error:
        images.load("cifar10", "train")
    assert "--images" in str(error.value)
    assert not list(places.cache().rglob("*.npz"))


def test_wrong_folder_names_what_was_looked_for(toy_world, tmp_path):
    with pytest.raises(ReproError, match="got none of them"):
        images.load("cifar10", "train", tmp_path)
    with pytest.raises(ReproError, match="no such folder"):
        images.load("cifar10", "train", tmp_path / "nowhere")


def test_html_saved_as_tarball_is_recognised(toy_world, tmp_path):
    (tmp_path / "cifar-10-python.tar.gz").write_text("<html>404</html>")
    with pytest.raises(ReproError, match="web page"):
        images.load("cifar10", "train", tmp_path)


def test_swapped_images_are_refused(toy_world, toy_sheets, tmp_path):
    folder = tmp_path / "swapped"
    shutil.copytree(toy_sheets, folder)
    (folder / "data_batch_1.png").rename(folder / "spare.png")
    (folder / "data_batch_2.png").rename(folder / "data_batch_1.png")
    (folder / "spare.png").rename(folder / "data_batch_2.png")
    with pytest.raises(ReproError, match="re-ordered"):
        images.load("cifar10", "train", folder)


class _Evil:
    def __reduce__(self):
        return (Path.touch, (Path("/tmp/this-must-never-exist"),))


def test_a_pickle_is_never_executed(toy_world, tmp_path):
    toy.write_batches(tmp_path)
    batch = tmp_path / "cifar-10-batches-py" / "data_batch_3"
    batch.write_bytes(pickle.dumps({b"data": _Evil(), b"labels": []}, protocol=2))
    with pytest.raises(ReproError, match="not allowed in an image file"):
        images.load("cifar10", "train", tmp_path)
    assert not Path("/tmp/this-must-never-exist").exists()


def test_the_restricted_unpickler_reads_arrays_as_python_2_wrote_them():
    rows = np.arange(2 * 3072, dtype=np.uint8).reshape(2, 3072)
    content = pickle.dumps({b"data": rows, b"labels": [3, 1]}, protocol=2)
    content = content.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    pixels, labels = images._read_batch(images.CIFAR10, "batch", content)
    np.testing.assert_array_equal(pixels.reshape(2, -1), rows)
    assert labels.tolist() == [3, 1]


def test_split_sets_aside_the_same_number_of_each_class():
    labels = np.random.default_rng(0).integers(0, 10, 5000)
    training, validation = images.split(labels, 20)
    assert np.bincount(labels[validation]).tolist() == [20] * 10
    np.testing.assert_array_equal(np.sort(np.r_[training, validation]), np.arange(5000))
    again = images.split(labels, 20)
    np.testing.assert_array_equal(training, again[0])
    other = images.split(labels, 20, seed=1)
    assert not np.array_equal(validation, other[1])


def test_parts_of_the_toy_set(toy_world, toy_sheets):
    training = images.load("cifar10", "train", toy_sheets)
    validation = images.load("cifar10", "validation", toy_sheets)
    assert len(training) == toy.SHOWN
    assert len(validation) == 10 * toy.VALIDATION
    assert not set(training.index) & set(validation.index)
    whole = toy.parts()["train"][0]
    np.testing.assert_array_equal(training.images, whole[training.index])
    with pytest.raises(ReproError, match="unknown part"):
        images.load("cifar10", "holdout")
    with pytest.raises(ReproError, match="unknown data set"):
        images.load("mnist", "train")


def test_content_hash_is_of_pixels_then_labels():
    pixels, labels = toy.arrays(1, 3)
    reference = hashlib.sha256(pixels.tobytes() + bytes(labels.tolist())).hexdigest()
    assert images.content_hash(pixels, labels) == reference


def test_crop_and_flip_equals_naive():
    draws = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (12, 3, 9, 7), generator=draws).to(torch.uint8)
    shift = torch.randint(0, 2 * PADDING + 1, (12, 2), generator=draws)
    flip = torch.arange(12) % 2 == 0
    reference = [
        naive.crop_and_flip(*each)
        for each in zip(pixels.numpy(), shift.numpy(), flip.numpy(), strict=True)
    ]
    computed = crop_and_flip(pixels, shift, flip)
    np.testing.assert_array_equal(computed.numpy(), np.stack(reference))


def test_epoch_is_keyed_by_its_parts_only():
    first, again, other = Epoch(100, "run", 3), Epoch(100, "run", 3), Epoch(100, "run", 4)
    assert torch.equal(first.order, again.order)
    assert torch.equal(first.shift, again.shift)
    assert torch.equal(first.flip, again.flip)
    assert not torch.equal(first.order, other.order)
    assert sorted(first.order.tolist()) == list(range(100))
    index, shift, _ = first.batch(90, 120)
    assert len(index) == 10
    assert torch.equal(shift, first.shift[index])


def test_to_float_scales_to_one():
    pixels = torch.tensor([0, 51, 255], dtype=torch.uint8).view(1, 3, 1, 1)
    assert to_float(pixels).flatten().tolist() == pytest.approx([0.0, 0.2, 1.0])


def test_numpy_archives_with_objects_are_refused(tmp_path):
    file = io.BytesIO()
    np.savez(file, train_images=np.array([{}], dtype=object))
    path = tmp_path / "cifar10.npz"
    path.write_bytes(file.getvalue())
    with pytest.raises(ReproError, match="not a readable image cache"):
        images._read_npz(path)


PIXELS = np.zeros((2, 3, 4, 4), np.uint8)


@pytest.mark.parametrize(
    ("arrays", "reason"),
    [
        ({"images": PIXELS / 1.0}, "images are float64 of shape (2, 3, 4, 4)"),
        ({"images": PIXELS[0]}, "images are uint8 of shape (3, 4, 4)"),
        (
            {"images": PIXELS.transpose(0, 2, 3, 1)},
            "images are uint8 of shape (2, 4, 4, 3); likely channels last",
        ),
        ({"images": PIXELS, "labels": np.arange(3)}, "2 images, but labels of shape (3,)"),
        ({"images": PIXELS, "labels": np.ones(2)}, "labels are float64, not whole numbers"),
        ({"pixels": PIXELS}, "'images is not a file in the archive'"),
    ],
)
def test_images_of_yours_that_are_none_are_one_line(arrays, reason, tmp_path):
    path = tmp_path / "mine.npz"
    np.savez(path, **arrays)
    with pytest.raises(ReproError) as refused:
        images.of_yours(path)
    assert str(refused.value) == (
        f"{path}: expected a folder of equal-sized images or an .npz with uint8 images "
        f"(n, 3, rows, columns) and maybe labels ({reason})"
    )


def test_folders_of_yours_without_images_are_one_line(tmp_path):
    with pytest.raises(ReproError) as refused:
        images.of_yours(tmp_path)
    assert str(refused.value).endswith("and maybe labels (no PNG or JPEG in it)")
    with pytest.raises(ReproError) as refused:
        images.of_yours(tmp_path / "none")
    assert str(refused.value) == (
        f"{tmp_path / 'none'}: no such folder or file; expected images of yours"
    )
