"""softspoken commands in processes of their own, without the ten seconds that importing torch and transformers takes each time.

One process imports them, under the environment that the test wants (huggingface_hub reads its own at import), and forks for
each command.
"""

import importlib
import json
import os
import runpy
import subprocess
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType


@dataclass(frozen=True)
class Done:
    status: int
    stdout: str
    stderr: str


class Commands:
    """`with Commands(environment) as softspoken: softspoken(folder, "train", "--steps", "1")`"""

    def __init__(self, environment: dict[str, str], *modules: str) -> None:
        """`modules`: what is imported before the first command."""
        self.process = subprocess.Popen(
            [sys.executable, __file__, *(modules or ["softspoken.train"])],
            env={**os.environ, **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __call__(self, cwd: Path, *argv: str, stdin: str = "", **environment: str) -> Done:
        """Run in the folder `cwd`, with more environment for what reads it late; of it, BEFORE is Python that is run first. Where the first
        word is a Python file, that is run in place of softspoken."""
        files = {name: cwd / f".{name}" for name in ("stdin", "stdout", "stderr")}
        files["stdin"].write_text(stdin, encoding="utf-8")
        request = {"cwd": str(cwd), "argv": argv, "environment": environment}
        assert self.process.stdin
        assert self.process.stdout
        print(json.dumps(request), file=self.process.stdin, flush=True)
        status = int(self.process.stdout.readline())
        done = Done(status, *(files[name].read_text(encoding="utf-8") for name in ("stdout", "stderr")))
        for file in files.values():
            file.unlink()
        return done

    def __enter__(self) -> "Commands":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.process.kill()  # it holds nothing, and by itself takes its time to let go of torch
        self.process.communicate()


def _serve() -> None:
    from softspoken.cli import main as cli

    cli._quiet(debug=False)  # as cli.main does it, before anything is imported
    for module in sys.argv[1:]:
        importlib.import_module(module)

    for line in sys.stdin:
        request = json.loads(line)
        child = os.fork()
        if child == 0:
            _run(**request)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


def _run(cwd: str, argv: list[str], environment: dict[str, str]) -> None:
    status = 70
    try:
        os.chdir(cwd)
        os.environ.update(environment)
        for descriptor, (name, flags) in enumerate(
            (("stdin", os.O_RDONLY), ("stdout", os.O_WRONLY), ("stderr", os.O_WRONLY))
        ):
            os.dup2(os.open(f".{name}", flags | os.O_CREAT), descriptor)
        sys.stdin = open(0, encoding="utf-8")  # noqa: SIM115
        exec(environment.get("BEFORE", ""), {})
        status = _main(argv)
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(status)


def _main(argv: list[str]) -> int:
    if not (argv and argv[0].endswith(".py")):
        from softspoken.__main__ import main

        return main(argv)
    sys.argv = argv
    sys.path.insert(0, str(Path(argv[0]).parent))
    runpy.run_path(argv[0], run_name="__main__")
    return 0


if __name__ == "__main__":
    _serve()
