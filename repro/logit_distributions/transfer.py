"""Results and unfinished runs from one machine to another, in small files with hashes.

`pack` writes what was finished of a plan, and what the rest needs to go on; `unpack` merges it
into the folders of another machine, where ``logitdist run`` then goes on. No torch here.
"""

from __future__ import annotations

import io
import json
import re
import shutil
import tarfile
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from logit_distributions import paths, store
from logit_distributions.errors import ReproError, brief
from logit_distributions.images import cached_file
from logit_distributions.paths import epoch_file, given_file, rolling_file, run_folder
from logit_distributions.recipes import given
from logit_distributions.schedule import Job, known_epoch, with_needs

PIECE = 15 << 20
"""Largest size of a file, in bytes: what most ways of sending files take."""

MANIFEST = "manifest.json"
SCHEMA = "logit-distributions-pack/1"
_SAFE = re.compile(r"(data|cache)(/[\w=+-][\w.=+-]*)+")


def contents(jobs: Sequence[Job], with_images: bool = False) -> dict[str, Path]:
    """Return the files that carry these jobs to another machine, by name in the pack.

    Parameters
    ----------
    jobs : sequence of Job
    with_images : bool
        Also the cached images of their data sets, for a machine without a network.

    Returns
    -------
    dict
        Datasets of finished jobs under ``data/``; under ``cache/``, for the others and what they
        need, rolling checkpoints, the checkpoints that are evaluated, taught from or recorded,
        averaged targets and half-finished attacks.
    """
    every = with_needs(jobs)
    found = [job.path for job in every]
    found += [paths.data() / "checkpoints" / f"{job.run}.safetensors" for job in every]
    for job in with_needs([job for job in jobs if not job.path.exists()]):
        found += _unfinished(job)
    if with_images:
        found += [cached_file(job.recipe.dataset) for job in jobs]
    return {_name(path): path for path in found if path.is_file()}


def _unfinished(job: Job) -> Iterator[Path]:
    epoch = known_epoch(job.recipe)
    how = job.recipe.distillation
    if name := given(job.recipe.scale):
        yield given_file(name)
    yield rolling_file(job.recipe, job.seed)
    if epoch is None or job.kind == "epochs":
        yield from sorted(run_folder(job.recipe, job.seed).glob("epoch-*.safetensors"))
    else:
        yield epoch_file(job.recipe, job.seed, epoch)
    if job.kind == "train" and how is not None and how.epoch is not None:
        teacher = next(need for need in job.needs if need.recipe.name == how.teacher)
        yield epoch_file(teacher.recipe, job.seed, how.epoch)
    yield from sorted((paths.cache() / "targets").glob(f"{job.run}-epoch*"))
    yield from sorted((paths.cache() / "attacks").glob(f"{job.run}-*.npz"))


def _name(path: Path) -> str:
    for root, place in (("data", paths.data()), ("cache", paths.cache())):
        if path.is_relative_to(place):
            return f"{root}/{path.relative_to(place).as_posix()}"
    raise AssertionError(path)


def pack(files: dict[str, Path], target: Path) -> list[Path]:
    """Write files as pieces of one archive, none larger than `PIECE`, and their manifest.

    Parameters
    ----------
    files : dict
        By name in the pack, as from `contents`.
    target : Path
        A folder that is empty or new.

    Returns
    -------
    list of Path
        What was written. The manifest comes last, so that a pack without one is incomplete.

    Raises
    ------
    ReproError
        If there is nothing to pack, or something in the folder.
    """
    if not files:
        raise ReproError("nothing to export: no dataset or checkpoint of these runs is here")
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ReproError(f"{target}: expected an empty or a new folder, got something in it")
    target.mkdir(parents=True, exist_ok=True)
    with (
        _Pieces(target) as writer,
        tarfile.open(fileobj=writer, mode="w|", format=tarfile.PAX_FORMAT) as archive,
    ):
        for name, path in sorted(files.items()):
            member = tarfile.TarInfo(name)
            member.size = path.stat().st_size
            with path.open("rb") as file:
                archive.addfile(member, file)
    about = {
        "schema": SCHEMA,
        "pieces": {path.name: paths.sha256(path) for path in writer.written},
        "files": {name: paths.sha256(path) for name, path in sorted(files.items())},
    }
    with paths.atomic(target / MANIFEST) as temporary:
        temporary.write_text(json.dumps(about, indent=1) + "\n")
    return [*writer.written, target / MANIFEST]


class _Pieces(io.RawIOBase):
    """A file to write to that is many files, each full but the last."""

    def __init__(self, target: Path) -> None:
        self.target = target
        self.written: list[Path] = []
        self.buffer = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, some: bytes) -> int:  # type: ignore[override]
        self.buffer += some
        while len(self.buffer) >= PIECE:
            self._cut()
        return len(some)

    def _cut(self) -> None:
        path = self.target / f"piece-{len(self.written):03d}"
        with paths.atomic(path) as temporary:
            temporary.write_bytes(self.buffer[:PIECE])
        del self.buffer[:PIECE]
        self.written.append(path)

    def close(self) -> None:
        if self.buffer:
            self._cut()
        super().close()


def unpack(source: Path) -> dict[str, str]:
    """Check a pack as a whole, then merge it into the folders of data and cache.

    Datasets that came as plain arrays become netCDF where its library is installed. Of two
    states of one training run the further one stays.

    Parameters
    ----------
    source : Path
        Folder with all the pieces and the manifest.

    Returns
    -------
    dict
        For each name in the pack: ``"new"``, ``"here already"``, or ``"here and further"``.

    Raises
    ------
    ReproError
        If a piece is missing or damaged, or a file differs from a finished one that is here;
        then nothing is changed.
    """
    about = _manifest(source)
    with tempfile.TemporaryDirectory(prefix="import-", dir=_made(paths.cache())) as scratch:
        _extract(source, about, Path(scratch))
        moves = {name: _Move(name, Path(scratch) / name) for name in about["files"]}
        states = {name: move.state() for name, move in moves.items()}
        for name, state in states.items():
            if state == "new":
                moves[name].carry_out()
    return states


def _made(place: Path) -> Path:
    place.mkdir(parents=True, exist_ok=True)
    return place


def _manifest(source: Path) -> dict[str, Any]:
    file = source / MANIFEST
    if not file.is_file():
        raise ReproError(
            f"{file} is missing; expected a folder made by 'logitdist export', likely it was not "
            "copied as a whole"
        )
    try:
        about: dict[str, Any] = json.loads(file.read_text())
        if about["schema"] != SCHEMA:
            raise ValueError(f"schema is {about['schema']!r}, not {SCHEMA!r}")
        pieces, files = about["pieces"].items(), about["files"].keys()
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ReproError(f"{file}: expected a manifest of a pack, got {brief(error)}") from error
    for name in files:
        if not _SAFE.fullmatch(name):
            raise ReproError(f"{file}: {name!r} is not a place in the folders of data or cache")
    missing = [name for name, _ in pieces if not (source / Path(name).name).is_file()]
    if missing:
        raise ReproError(f"{source}: {', '.join(missing)} missing of {len(pieces)} pieces")
    for name, digest in pieces:
        if (got := paths.sha256(source / Path(name).name)) != digest:
            raise ReproError(
                f"{source / name}: expected SHA-256 {digest}, got {got}; likely damaged: copy it "
                "again"
            )
    return about


class _Joined(io.RawIOBase):
    """The pieces, read as one file."""

    def __init__(self, pieces: Iterable[Path]) -> None:
        self.pieces = iter(pieces)
        self.file: io.BufferedReader | None = None

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        parts, wanted = [], size
        while wanted:
            if self.file is None:
                piece = next(self.pieces, None)
                if piece is None:
                    break
                self.file = piece.open("rb")
            part = self.file.read(wanted)
            if not part:
                self.file.close()
                self.file = None
                continue
            parts.append(part)
            wanted -= len(part)
        return b"".join(parts)

    def close(self) -> None:
        if self.file is not None:
            self.file.close()
        super().close()


def _extract(source: Path, about: dict[str, Any], scratch: Path) -> None:
    files = about["files"]
    pieces = [source / Path(name).name for name in sorted(about["pieces"])]
    found = set()
    with _Joined(pieces) as joined, tarfile.open(fileobj=joined, mode="r|") as archive:
        for member in archive:
            if member.name not in files or not member.isfile():
                raise ReproError(f"{source}: {member.name!r} is not in its {MANIFEST}")
            place = scratch / member.name
            place.parent.mkdir(parents=True, exist_ok=True)
            content = archive.extractfile(member)
            assert content is not None
            with place.open("wb") as file:
                shutil.copyfileobj(content, file)
            if (got := paths.sha256(place)) != files[member.name]:
                raise ReproError(
                    f"{source}: {member.name}: expected SHA-256 {files[member.name]}, got {got}"
                )
            found.add(member.name)
    if missing := sorted(set(files) - found):
        raise ReproError(f"{source}: {', '.join(missing)} of {MANIFEST} are not in the pieces")


class _Move:
    """A file of a pack, and the place that it is to have here."""

    def __init__(self, name: str, file: Path) -> None:
        root, _, rest = name.partition("/")
        place = (paths.data() if root == "data" else paths.cache()) / rest
        kind = place.parent.name
        self.is_dataset = root == "data" or kind == "targets"
        self.is_dataset &= file.suffix in (store.NETCDF, store.PLAIN)
        self.is_dataset &= not file.name.endswith(f".partial{store.PLAIN}")
        self.is_stored = root == "data"
        self.may_differ = kind == "attacks" or ".partial" in place.name
        self.file = file
        self.place = place.with_suffix(store.suffix()) if self.is_dataset else place
        if self.is_dataset:
            faults = store.validate(file)
            if faults:
                raise ReproError(f"{name}: {faults[0]}")

    def state(self) -> str:
        """Return what is to become of the file; refuse what contradicts a finished result."""
        if not self.place.exists():
            return "new"
        if self._same():
            return "here already"
        if self.place.name == "rolling.safetensors":
            return "new" if _progress(self.file) > _progress(self.place) else "here and further"
        if self.may_differ:
            return "here and further"
        raise ReproError(
            f"{self.place}: expected the same content as in the pack, got another; likely the run "
            "was made on both machines: move one away"
        )

    def _same(self) -> bool:
        if self.is_dataset:
            here, there = store.read_file(self.place), store.read_file(self.file)
            return store.content_sha256(here) == store.content_sha256(there)
        return paths.sha256(self.place) == paths.sha256(self.file)

    def carry_out(self) -> None:
        if not self.is_stored:
            self._place()
            return
        with store.registering(self.place):
            self._place()

    def _place(self) -> None:
        if self.is_dataset and self.file.suffix != self.place.suffix:
            store.write_file(store.read_file(self.file), self.place)
            return
        with paths.atomic(self.place) as temporary:
            shutil.copyfile(self.file, temporary)


def _progress(checkpoint: Path) -> tuple[int, int]:
    """Return finished epochs, and finished steps of the current one."""
    from safetensors import safe_open

    with safe_open(checkpoint, framework="np") as file:
        about = json.loads(file.metadata()["checkpoint"])
    return int(about["epoch"]), int(about["step"])
