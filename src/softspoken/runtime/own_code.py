"""A user's own Python file, named on their own command line, as a module."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from softspoken.types import InputError


def module_of_file(path: Path, what: str) -> ModuleType:
    """The file run once, under its own name, so that what it defines is found by `STEM:NAME` as well; what lies beside it it may import.

    Raises InputError, which begins with `what`, where there is none, where it fails, or another module has that name.
    """
    if not path.is_file():
        raise InputError(f"{what}: no file at {path}; give a Python file")
    known = sys.modules.get(path.stem)
    if known is not None:
        if Path(getattr(known, "__file__", None) or "").resolve() != path.resolve():
            raise InputError(f"{what} {path} has the name of another module; rename the file")
        return known
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec
    assert spec.loader
    made = sys.modules[path.stem] = importlib.util.module_from_spec(spec)
    if str(path.resolve().parent) not in sys.path:
        sys.path.append(str(path.resolve().parent))
    try:
        spec.loader.exec_module(made)
    except (Exception, SystemExit) as error:  # the user's code can fail in any way
        del sys.modules[path.stem]
        raise InputError(f"{what} {path} cannot be run ({type(error).__name__}: {error}); mend it") from error
    return made
