"""Whether the hub can give a repository, asked once and plainly, before the libraries ask for its files.

Theirs is a patient way: a hub out of reach is tried again for some 23 seconds a file, in silence.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from softspoken.types import InputError


def require_on_hub(repo: str, kind: Literal["model", "dataset"], ways_on: str) -> None:
    """Raise InputError, which ends in `ways_on`, where the hub is out of reach or has no such repository.

    What lies in the cache is not asked for: it can be used without the hub.
    """
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, RepositoryNotFoundError
    from huggingface_hub.file_download import repo_folder_name

    cached = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=repo, repo_type=kind) / "snapshots"
    if cached.is_dir() or constants.HF_HUB_OFFLINE:
        return
    try:
        HfApi().repo_info(repo, repo_type=kind, timeout=constants.HF_HUB_ETAG_TIMEOUT)
    except RepositoryNotFoundError as error:
        raise InputError(
            f"the hub at {constants.ENDPOINT} has no {kind} {repo!r} for you; check the name, {ways_on}"
        ) from error
    except (HfHubHTTPError, HFValidationError):
        return  # reached; what is amiss (access, say, or the form of the name) the library's own attempt says best
    except Exception as error:  # no answer: which exception that is depends on the HTTP client and the proxy
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"cannot reach the hub at {constants.ENDPOINT} for {kind} {repo!r} ({reason}); {ways_on}"
        ) from error
