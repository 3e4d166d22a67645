"""The folder that a command writes: where it may be, which process has it, what of it is ours, and how a file gets into it.

FOLDER/.softspoken is ours alone: `written` names every file that softspoken puts into FOLDER, before it is there; `lock` and `owner.json`
say which process has it; in `saving` lies what is not whole yet. What `written` does not name is never deleted or replaced.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import re
import shutil
import socket
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Any

import yaml
from filelock import FileLock, Timeout

from softspoken.types import InputError

log = logging.getLogger(__name__)

PRIVATE = ".softspoken"
WRITTEN = "written"
OF_OLD = re.compile(
    r"config\.yaml|metrics\.jsonl|eval\.json|eval_rows\.jsonl|report\.html|README\.md|\.eval_rows\.jsonl\.(partial|state\.json)"
    r"|tensorboard/events[^/]*|checkpoints/step-\d+/(weights\.safetensors|optimizer\.safetensors|progress\.json)"
    r"|adapter/([^/]+\.(json|safetensors|model|jinja)|README\.md|(vocab|merges)\.txt)"
)
"""What versions before the record wrote into a run's or an evaluation's folder."""


def passing_folder() -> RunFolder:
    """Where a process writes that is not the first of those that run a command: what it needs itself, for as long as it runs."""
    return RunFolder(tempfile.mkdtemp(prefix="softspoken-"), passing=True)


class RunFolder:
    """One process's, from `with` to its end. Nothing in it is made, changed or deleted before `begin`."""

    def __init__(
        self,
        path: Path | str,
        *,
        replace: bool = False,
        add: bool = False,
        numbered: bool = False,
        passing: bool = False,
        go_on: str = "",
    ) -> None:
        """`replace`: what is ours there is deleted first; `add`: it stays; else the folder has to be new or empty.

        `numbered`: where the folder is there, NAME-2, NAME-3 … is made instead. `passing`: it goes at the end, with all that is in it.
        `go_on`: how a user would, for the sentence that
        refuses a folder that is ours.
        """
        self.path = Path(path)
        self._replace, self._add, self._numbered, self._go_on = replace, add, numbered, go_on
        self._passing = passing
        self._lock: FileLock | None = None
        self._begun = False
        self._written: dict[str, None] = {}
        """Files of ours relative to the folder, in the order of their writing."""

    def __enter__(self) -> RunFolder:
        """Raises InputError where another process has the folder, or it holds what is not ours."""
        if not self._numbered:
            with saying_what_is_wrong(self.path):
                if (self.path / PRIVATE).is_dir():
                    self._take()
                self._checked_or_let_go()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._begun:  # where nothing came of it, nothing stays
            shutil.rmtree(self.path / PRIVATE / ("saving" if self._written else ""), ignore_errors=True)
        self._let_go()
        if self._passing:
            shutil.rmtree(self.path, ignore_errors=True)

    def begin(self) -> None:
        """Make the folder, or delete what is ours in it, or take it as it is. After this the other methods may be called."""
        with saying_what_is_wrong(self.path):
            if self._numbered:
                self.path = _made_new(self.path)
            else:
                self.path.mkdir(parents=True, exist_ok=True)
            self._take()
            self._checked_or_let_go()  # another process may have been faster
            shutil.rmtree(self.path / PRIVATE / "saving", ignore_errors=True)
            self._written = dict.fromkeys(self._ours())
            self._begun = True
            self._save_record()
            if self._replace:
                self.remove(*self._written)
            sync_folder(self.path.parent)

    # ------------------------------------------------------------------------------------------------------ writing

    def claim(self, *names: str) -> None:
        """Put files on the record before they are written. Raises InputError for one that is there and not on it."""
        new = [name for name in names if name not in self._written]
        for name in new:
            if os.path.lexists(self.path / name):
                raise InputError(
                    f"{self.path / name} is in the way and was not written by softspoken; move it elsewhere"
                )
        self.record(*new)

    def record(self, *names: str) -> None:
        """Put files on the record that a library has written, under names that it alone knew."""
        assert self._begun, "before `begin` the record has not been read"
        new = [name for name in names if name not in self._written]
        if new:
            with (self.path / PRIVATE / WRITTEN).open("a", encoding="utf-8") as record:
                record.writelines(json.dumps(name) + "\n" for name in new)
                record.flush()
                os.fsync(record.fileno())
            self._written |= dict.fromkeys(new)

    def write(self, name: str, content: str | bytes) -> Path:
        """The file, whole or as it was before."""
        self.claim(name)
        return write_file(self.path / name, content, beside=self._saving(name))

    @contextmanager
    def replacing(self, name: str) -> Iterator[Path]:
        """An empty folder, whose files become those of `name` at the end: all at once, where `name` is not there yet."""
        beside = self._saving(name)
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(parents=True)
        yield beside
        files = sorted(path.relative_to(beside) for path in beside.rglob("*") if path.is_file())
        for file in files:
            sync_file(beside / file)
        for folder in {file.parent for file in files}:
            sync_folder(beside / folder)
        self.remove(name)
        self.claim(*((PurePosixPath(name) / file.as_posix()).as_posix() for file in files))
        target = self.path / name
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            beside.replace(target)
        else:
            for file in files:
                (target / file).parent.mkdir(parents=True, exist_ok=True)
                (beside / file).replace(target / file)
            shutil.rmtree(beside)
            sync_folder(target)
        sync_folder(target.parent)

    def rename(self, name: str, to: str) -> None:
        self.claim(to)
        (self.path / name).replace(self.path / to)
        sync_folder(self.path)
        self._forget([name])

    def remove(self, *names: str) -> None:
        """Delete these files, and whatever of ours lies in folders of these names; folders that are empty then go too."""
        gone = [own for own in self._written if any(own == name or own.startswith(f"{name}/") for name in names)]
        for own in gone:
            path = self.path / own
            if not _is_inside(path.parent, self.path):
                log.warning("%s is left alone: its folder leads out of %s", path, self.path)
                continue
            path.unlink(missing_ok=True)
            for folder in path.parents:
                if folder == self.path:
                    break
                with suppress(OSError):  # something else lies in it
                    folder.rmdir()
        self._forget(gone)

    def has(self, name: str) -> bool:
        """Whether the file is there and ours."""
        return name in self._written and (self.path / name).is_file()

    def scratch(self, name: str) -> Path:
        """An empty folder for a library to write into; it is gone when the folder is opened again."""
        folder = self._saving(name)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        return folder

    # ------------------------------------------------------------------------------------------------------- the record

    def _saving(self, name: str) -> Path:
        folder = self.path / PRIVATE / "saving"
        folder.mkdir(exist_ok=True)
        return folder / f"{name.replace('/', '|')}.saving"

    def _forget(self, names: Iterable[str]) -> None:
        for name in names:
            self._written.pop(name, None)
        self._save_record()

    def _save_record(self) -> None:
        assert self._begun, "before `begin` the record has not been read"
        lines = "".join(json.dumps(name) + "\n" for name in self._written)
        write_file(self.path / PRIVATE / WRITTEN, lines, beside=self._saving(WRITTEN))

    def _ours(self) -> list[str]:
        """What is there of the record's files; without a record, what an earlier version is known to have written."""
        record = self.path / PRIVATE / WRITTEN
        if record.is_file():
            names = [_name(line) for line in record.read_bytes().split(b"\n")]
            return [name for name in names if name and os.path.lexists(self.path / name)]
        files = _files(self.path)
        return [name for name in files if OF_OLD.fullmatch(name)] if _is_of_old(self.path) else []

    def _checked_or_let_go(self) -> None:
        try:
            self._check()
        except BaseException:
            self._let_go()
            raise

    def _check(self) -> None:
        if os.path.lexists(self.path) and not self.path.is_dir():
            raise InputError(f"output {self.path} is not a folder; give the name of one")
        above = next(parent for parent in (self.path, *self.path.absolute().parents) if os.path.lexists(parent))
        if not above.is_dir() or not os.access(above, os.W_OK):
            raise InputError(
                f"output {self.path} cannot be written ({above} is no folder that you may write to); give another"
            )
        there = sorted(path.name for path in self.path.iterdir() if path.name != PRIVATE) if self.path.is_dir() else []
        if not there:
            return
        record, ours = (self.path / PRIVATE / WRITTEN).is_file(), self._ours()
        foreign = there if not ours else [name for name in _files(self.path) if name not in ours]
        known = ours if self._add else record if self._replace else record and ours
        if foreign and not known:
            raise InputError(
                f"output {self.path} holds what softspoken has no record of writing (such as {foreign[0]!r}); "
                "give a new or an empty folder"
            )
        if not (self._replace or self._add):
            raise InputError(
                f"output {self.path} is not empty; pass --overwrite true to replace what softspoken wrote there"
                f"{self._go_on and f', or {self._go_on} to go on with it'}"
            )

    # ------------------------------------------------------------------------------------------------------- the lock

    def _take(self) -> None:
        if self._lock:
            return
        private = self.path / PRIVATE
        if private.is_symlink():
            raise InputError(f"{private} is a link; remove it")
        private.mkdir(exist_ok=True)
        owner = private / "owner.json"
        lock = FileLock(private / "lock", timeout=0)
        try:
            lock.acquire()
        except Timeout:
            raise InputError(f"{self.path} is in use by {_told(owner)}; wait for its end, or stop it") from None
        self._lock = lock
        if owner.is_file():  # a process that ends takes its name away
            log.info("%s was left by %s, which did not come to its end", self.path, _told(owner))
        me = {"process": os.getpid(), "host": socket.gethostname(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
        owner.write_text(json.dumps(me) + "\n", encoding="utf-8")

    def _let_go(self) -> None:
        if self._lock:
            with suppress(OSError):
                (self.path / PRIVATE / "owner.json").unlink(missing_ok=True)
            self._lock.release()
            self._lock = None


# --------------------------------------------------------------------------------------------------------- places


def require_place(output: str, inputs: Sequence[str | None], writes: Sequence[str] = ()) -> None:
    """Raises InputError for an output that must not be one: the working folder, the home, a folder above them, or one that is or
    holds something in use. `inputs`: models, data sets, adapters, judges … as they were given. `writes`: the files that are
    written, where other files in the folder are left alone."""
    with saying_what_is_wrong(Path(output)):
        path = Path(output).resolve()
        for what, place in (("the working folder", Path.cwd()), ("your home folder", Path.home())):
            if _is_or_holds(path, place):
                raise InputError(f"output {output!r} is {what} or a folder above it; give a folder of its own")
        for given in filter(None, inputs):
            for place in local_paths(given):
                if any(_is_or_holds(path / name, place) for name in writes or ("",)) or _same(path, place):
                    raise InputError(f"output {output!r} is or holds {given!r}, which is read; give another folder")


def require_room(path: Path, needed: int, what: str) -> None:
    """Raises InputError where the disk of `path`, which need not be there yet, has fewer bytes left than `what` will take."""
    there = next(place for place in (path.absolute(), *path.absolute().parents) if place.exists())
    free = shutil.disk_usage(there).free
    if free < needed:
        raise InputError(
            f"output {path}: {free / 1e6:,.0f} MB are free on its disk, and {what} will take {needed / 1e6:,.0f} MB; make room there, or give "
            "an output on another disk"
        )


def local_paths(source: str) -> list[Path]:
    """The file or folder that `source` names, if there is one: PATH, NAME=PATH, KIND:PATH, KIND:PATH:LABEL, also in sums."""
    parts = [source, source.partition("=")[2]]
    for term in re.split(r"\s+\+\s+|\*", source):
        kind, _, rest = term.strip().partition(":")
        parts += [rest, rest.rpartition(":")[0]] if kind and rest else []
    with suppress(OSError, ValueError):  # a name too long for a file is none
        return [Path(part) for part in dict.fromkeys(parts) if part and Path(part).exists()]
    return []


def stamps(sources: Iterable[str]) -> dict[str, Any]:
    """Size and time of each local file that responses and scores come from: an adapter trained anew is another."""
    found = {}
    for place in (place for source in sources for place in local_paths(source)[:1]):
        for path in sorted(filter(Path.is_file, place.iterdir())) if place.is_dir() else [place]:
            found[str(path)] = [path.stat().st_size, path.stat().st_mtime_ns]
    return found


def _is_or_holds(path: Path, place: Path) -> bool:
    """By what they are, not how they are written: through links, and whatever the case where that does not count."""
    place = place.resolve()
    return any(_same(path, one) for one in (place, *place.parents))


def _same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:
        return False


def _is_inside(path: Path, folder: Path) -> bool:
    path, folder = path.resolve(), folder.resolve()
    return path == folder or folder in path.parents


def _made_new(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    for number in count(1):
        folder = path if number == 1 else path.with_name(f"{path.name}-{number}")
        with suppress(FileExistsError):
            folder.mkdir()
            return folder
    raise AssertionError("numbers have no end")


# ---------------------------------------------------------------------------------------------------------- files


def write_file(path: Path, content: str | bytes, *, beside: Path | None = None) -> Path:
    """Whole, or as it was before, whenever the process or the power goes: beside, to the disk, renamed."""
    beside = beside or path.with_name(f".{path.name}.saving")
    with beside.open("wb") as file:
        file.write(content.encode() if isinstance(content, str) else content)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)
    sync_folder(path.parent)
    return path


def sync_file(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """So that what was renamed in it has its new name after a power cut too; where the system cannot, it need not."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


@contextmanager
def saying_what_is_wrong(path: Path) -> Iterator[None]:
    """Turns what is wrong with an output's name or place into an InputError; a disk that is full, say, is not the user's fault."""
    try:
        yield
    except (NotADirectoryError, FileExistsError, PermissionError) as error:
        raise InputError(f"output {str(path)!r} cannot be written ({error.strerror}); give another") from error
    except OSError as error:
        if error.errno not in (errno.ENAMETOOLONG, errno.ELOOP, errno.EROFS):
            raise
        raise InputError(f"output {str(path)!r} cannot be written ({error.strerror}); give another") from error
    except ValueError as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"output {str(path)!r} cannot be a name ({error}); give another") from error


def _files(folder: Path) -> list[str]:
    """Relative names of all files (links are not followed) but those of our own folder."""
    found = []
    for root, folders, files in os.walk(folder):
        here = Path(root)
        folders[:] = [name for name in folders if here / name != folder / PRIVATE]
        links = [name for name in folders if (here / name).is_symlink()]
        found += [(here / name).relative_to(folder).as_posix() for name in [*files, *links]]
    return sorted(found)


def _name(line: bytes) -> str | None:
    """A file's name in a line of the record; none where a crash cut the line short, or it leads out of the folder."""
    try:
        name: Any = json.loads(line)
    except ValueError:
        return None
    whole = isinstance(name, str) and name and not PurePosixPath(name).is_absolute() and ".." not in name.split("/")
    return name if whole else None


def _is_of_old(folder: Path) -> bool:
    """Whether an earlier version's run or evaluation lies here, by what is in its files."""
    heads = (
        ("config.yaml", yaml.safe_load, {"config", "versions"}),
        ("eval.json", json.loads, {"systems", "judges"}),
        ("metrics.jsonl", lambda text: json.loads(text.partition("\n")[0]), {"step"}),
    )
    for name, parsed, keys in heads:
        if (folder / name).is_file():
            with suppress(OSError, ValueError, RecursionError, yaml.YAMLError):
                content = parsed((folder / name).read_text(encoding="utf-8"))
                return isinstance(content, dict) and keys <= {*content}
            return False
    return False


def _told(owner: Path) -> str:
    try:
        told = json.loads(owner.read_text(encoding="utf-8"))
        return f"process {told['process']} on {told['host']} (since {told['since']})"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"
