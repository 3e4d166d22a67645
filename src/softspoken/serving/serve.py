"""`softspoken serve`: load, check, listen."""

from __future__ import annotations

import gc
import logging
import sys
from typing import Any

from softspoken.config import ServeConfig
from softspoken.config.idle import say_what_is_idle
from softspoken.config.kinds import require_config
from softspoken.config.serving import is_loopback
from softspoken.models.cpu import tune_cpu
from softspoken.models.pretrained import resolve_device
from softspoken.runtime.addresses import require_free
from softspoken.tasks.task import load_task
from softspoken.types import InputError

log = logging.getLogger(__name__)

SWITCH_SECONDS = 0.001
"""After which a thread that computes lets the one that answers have a turn; Python's own is five times as long."""


def serve(config: ServeConfig) -> None:
    """Until it is stopped. Raises InputError before it listens for what cannot be had.

    >>> softspoken.serve(softspoken.ServeConfig(adapter=["runs/demo/adapter"], port=8000))  # doctest: +SKIP
    """
    require_config(config, ServeConfig, "serve")
    server = prepared(config)
    server.run()


def prepared(config: ServeConfig) -> Any:
    """The server, all loaded, before it listens."""
    try:
        import fastapi  # noqa: F401
        import prometheus_client  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise InputError(f"serve needs the package {error.name}; pip install 'softspoken[serve]'") from error
    from softspoken.rewards.terms import load_judge
    from softspoken.serving.api import create_app
    from softspoken.serving.guard import Guard
    from softspoken.serving.http import server_of
    from softspoken.serving.keys import Keys
    from softspoken.serving.models import Models

    say_what_is_idle(config)
    require_free(config.host, config.port)
    keys = Keys.read(config.api_key_file) if config.api_key_file else None
    tune_cpu()
    guard = None
    if config.guard:
        device = str(resolve_device(config.device))
        judge = load_judge(config.judge, device=device, detoxify_sha256=config.detoxify_sha256)
        guard = Guard(judge, config.guard_threshold, config.guard_samples, config.guard_refusal)
    models = Models(config, load_task(config.task))
    models.load()
    sys.setswitchinterval(SWITCH_SECONDS)
    gc.collect()
    gc.freeze()  # what is loaded stays; searching it for garbage holds every answer up for a third of a second
    log.info(
        "serving %s (%s), %s, %s",
        config.model,
        ", ".join(one.name for one in models),
        f"guarded by {config.judge} above {config.guard_threshold:g}" if guard else "not guarded",
        "with keys" if keys else "without keys, to this machine alone" if is_loopback(config.host) else "OPEN TO ALL",
    )
    return server_of(create_app(config, models, guard, keys), config)
