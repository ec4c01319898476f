"""Put everything that is worth keeping into one folder, ready to deposit: ``make release``."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from logit_distributions import store
from logit_distributions.errors import ReproError
from logit_distributions.store import files, places
from paper import exit_code, parser_of

SOURCES = "logit-distributions.tar.gz"

ABOUT = """\
{source} (commit {commit}),
the results in data/, and the weights that the cache still had, by run and epoch, in weights/.
`sha256sum -c {registry}` checks every file. Licence and origin of the results and of the images
among them: data/README.md; how the weights were made, and what for: data/checkpoints/README.md.
"""


def write(folder: Path) -> Path:
    """Fill a folder with sources, results, weights and their checksums.

    Parameters
    ----------
    folder : Path
        Replaced as a whole, if it is a release.

    Returns
    -------
    Path
        Of the folder.

    Raises
    ------
    ReproError
        If the checkout has changes that no commit has, a file is damaged, or the folder holds
        something else.
    """
    if folder.exists() and not (folder / files.REGISTRY).exists():
        raise ReproError(f"{folder}: expected a release or nothing, got another folder")
    commit = _commit()
    part = folder.with_name(f"{folder.name}-unfinished")
    shutil.rmtree(part, ignore_errors=True)
    try:
        _fill(part, commit)
        shutil.rmtree(folder, ignore_errors=True)
        part.rename(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return folder


def _fill(folder: Path, commit: str) -> None:
    prefix = SOURCES.partition(".")[0]
    sources = _git("archive", "--format=tar.gz", f"--prefix={prefix}/", "HEAD", "--", ".", ":!data")
    with files.atomic(folder / SOURCES) as temporary:
        temporary.write_bytes(sources)
    for source, target in (*_results(), *_weights()):
        if faults := store.validate(source):
            raise ReproError(f"{source}: {faults[0]}")
        with files.atomic(folder / target) as temporary:
            shutil.copyfile(source, temporary)
    with files.atomic(folder / "README.txt") as temporary:
        text = ABOUT.format(source=SOURCES, commit=commit, registry=files.REGISTRY)
        temporary.write_text(text, encoding="utf-8")
    inside = sorted(path for path in folder.rglob("*") if path.is_file())
    lines = [f"{files.sha256(path)}  {path.relative_to(folder).as_posix()}\n" for path in inside]
    with files.atomic(folder / files.REGISTRY) as temporary:
        temporary.write_text("".join(lines), encoding="utf-8")


def _commit() -> str:
    commit = _git("rev-parse", "HEAD").decode().strip()
    if changed := _git("status", "--porcelain", "--untracked-files=no").decode():
        first = changed.splitlines()[0].split()[-1]
        raise ReproError(f"expected a checkout without changes, got some in {first}; commit them")
    return commit


def _git(*arguments: str) -> bytes:
    done = subprocess.run(["git", "-C", str(places.ROOT), *arguments], capture_output=True)
    if done.returncode:
        raise ReproError(
            f"{places.ROOT}: expected a git checkout, got 'git {arguments[0]}': "
            f"{done.stderr.decode(errors='replace').strip() or done.returncode}"
        )
    return done.stdout


def _results() -> Iterator[tuple[Path, Path]]:
    """Yield each registered result, the pages about them and the registry, each with its place."""
    data = places.data()
    pages = sorted(path.relative_to(data) for path in data.rglob("README.md"))
    for name in (*map(Path, sorted(files.registered())), *pages, Path(files.REGISTRY)):
        yield data / name, "data" / name


def _weights() -> Iterator[tuple[Path, Path]]:
    """Yield the checkpoints of finished epochs in the cache, each with its place."""
    cache = places.cache()
    for pattern in ("checkpoints/*.safetensors", "runs/*/epoch-*.safetensors"):
        for path in sorted(cache.glob(pattern)):
            yield path, "weights" / path.relative_to(cache)


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the release into the build folder and print where, how many files and how large."""
    parser_of("paper.release", __doc__).parse_args(arguments)

    def command() -> int:
        folder = write(places.build() / "release")
        inside = [path for path in folder.rglob("*") if path.is_file()]
        size = sum(path.stat().st_size for path in inside)
        print(f"{folder}: {len(inside)} files, {size / 1e6:.1f} MB")
        return 0

    return exit_code("release", command)


if __name__ == "__main__":
    sys.exit(main())
