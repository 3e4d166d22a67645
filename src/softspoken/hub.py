"""Whether the hub can give a repository, asked once and plainly, before the libraries ask for its files; one file of it; and
uploading.

Theirs is a patient way: a hub out of reach is tried again for some 23 seconds a file, in silence.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Literal

from softspoken.types import InputError, RunError, first_line

log = logging.getLogger(__name__)

Kind = Literal["model", "dataset"]


def require_on_hub(repo: str, kind: Kind, ways_on: str) -> None:
    """Raise InputError, which ends in `ways_on`, where the hub is out of reach or has no such repository.

    What lies in the cache is not asked for: it can be used without the hub.
    """
    from huggingface_hub import constants

    _require_name(repo, ways_on)
    if not constants.HF_HUB_OFFLINE and not _is_cached(repo, kind):
        _ask(repo, kind, ways_on)


def _require_name(repo: str, ways_on: str) -> None:
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise InputError(f"{repo!r} is neither a folder here nor a name that a hub could have; {ways_on}") from error


def _is_cached(repo: str, kind: Kind) -> bool:
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    return (Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=repo, repo_type=kind) / "snapshots").is_dir()


def _ask(repo: str, kind: Kind, ways_on: str) -> None:
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, RepositoryNotFoundError

    try:
        HfApi().repo_info(repo, repo_type=kind, timeout=constants.HF_HUB_ETAG_TIMEOUT)
    except RepositoryNotFoundError as error:
        raise InputError(
            f"the hub at {constants.ENDPOINT} has no {kind} {repo!r} for you; check the name, {ways_on}"
        ) from error
    except (HfHubHTTPError, HFValidationError):
        return  # reached; what is amiss (access, say, or the form of the name) the library's own attempt says best
    except Exception as error:  # no answer: which exception that is depends on the HTTP client and the proxy
        reason = first_line(error)
        raise InputError(
            f"cannot reach the hub at {constants.ENDPOINT} for {kind} {repo!r} ({reason}); {ways_on}"
        ) from error


def hub_file(repo: str, name: str, ways_on: str) -> Path | None:
    """The local copy of a file of a model repository; None where the repository has no such file."""
    from huggingface_hub import hf_hub_download, try_to_load_from_cache
    from huggingface_hub.errors import HfHubHTTPError, RemoteEntryNotFoundError

    _require_name(repo, ways_on)
    cached = try_to_load_from_cache(repo, name)
    if cached is not None:  # the file, or the note that there is none
        return Path(cached) if isinstance(cached, str) else None
    try:
        _ask(repo, "model", ways_on)
    except InputError:
        if not _is_cached(repo, "model"):
            raise
        # A copy that was fetched without asking for this file, and no hub to ask now.
        log.warning("the hub cannot be asked whether %s has a %s; going on without", repo, name)
        return None
    try:
        return Path(hf_hub_download(repo, name))
    except RemoteEntryNotFoundError:
        return None
    except (OSError, HfHubHTTPError) as error:
        reason = first_line(error)
        raise InputError(f"cannot get {name} of {repo!r} from the hub ({reason}); {ways_on}") from error


# ------------------------------------------------------------------------------------------------------- uploading


def require_pushable(repo: str) -> None:
    """Raises InputError where nothing could be uploaded to `repo`: better before a training than after it. Nothing is made there."""
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import HfHubHTTPError

    _require_name(repo, "give push_to_hub OWNER/NAME")
    if constants.HF_HUB_OFFLINE:
        raise InputError(
            "push_to_hub: the hub is switched off (HF_HUB_OFFLINE); switch it on, or leave push_to_hub out"
        )
    if not HfApi().token and not _token():
        raise InputError("push_to_hub: there is no token of the hub; log in with hf auth login, or set HF_TOKEN")
    try:
        HfApi().whoami()
    except HfHubHTTPError as error:
        raise InputError(
            f"push_to_hub: the hub at {constants.ENDPOINT} does not take the token ({first_line(error)}); log in with hf auth login"
        ) from error
    except Exception as error:  # as in _ask
        raise InputError(
            f"push_to_hub: cannot reach the hub at {constants.ENDPOINT} ({first_line(error)}); check the network, or leave it out"
        ) from error


def _token() -> str | None:
    from huggingface_hub import get_token

    return get_token()


def push(folder: Path, repo: str, *, files: list[str], private: bool = False) -> str:
    """Upload these files of `folder` as one commit to a model repository, which is made if it is not there; returns its address.

    Raises RunError: what is uploaded was made by then, and stays where it is.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    api = HfApi()
    try:
        made = api.create_repo(repo, private=private or None, exist_ok=True)
        additions = [CommitOperationAdd(name, str(folder / name)) for name in files]
        api.create_commit(made.repo_id, additions, commit_message="Upload what softspoken made")
    except Exception as error:  # of the HTTP client, the proxy or the hub
        raise RunError(
            f"{folder} could not be uploaded to {repo} ({first_line(error)}); it is whole here: hf upload {repo} {folder}"
        ) from error
    return str(made)
