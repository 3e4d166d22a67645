"""What the shells are given, asked of a real bash."""

import shutil
import subprocess
from pathlib import Path

import pytest

from softspoken.cli.flags import completion

ASK = """\
source "$1"; shift
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMP_LINE="$*"; COMP_POINT=${#COMP_LINE}
_shtab_softspoken; printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("completion") / "softspoken.bash"
    path.write_text(completion("bash"), encoding="utf-8")
    return path


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash here")
@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["comp"], {"compare", "completion"}),
        (["train", "--kl_c"], {"--kl_coef", "--kl_controller"}),
        (["train", "--kl_in", ""], {"reward", "loss"}),
        (["sft", "--optimizer", "adaf"], {"adafactor"}),
    ],
)
def test_bash_is_offered_commands_flags_and_values(script: Path, words: list[str], offered: set[str]) -> None:
    asked = ["bash", "-c", ASK, "bash", str(script), "softspoken", *words]
    result = subprocess.run(asked, capture_output=True, text=True, check=True)
    assert {line for line in result.stdout.split() if line.startswith(words[-1])} == offered


def test_a_path_is_completed_for_what_may_be_one() -> None:
    said = completion("bash")
    assert "_shtab_softspoken_train___dataset_COMPGEN=_shtab_compgen_files" in said
    assert "_shtab_softspoken_train___steps_COMPGEN" not in said


@pytest.mark.parametrize("shell", ["zsh", "tcsh"])
def test_other_shells_have_scripts_of_their_own(shell: str) -> None:
    said = completion(shell)
    assert "evaluate" in said
    assert "_shtab_softspoken()" not in said or shell == "zsh"
