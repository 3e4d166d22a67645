"""The shipped presets, and the one of them that the defaults follow: TrainConfig's are the embedded model's, and any other model takes
the preset `recommended` (of full weights `recommended-full`) for what is not given."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from importlib.resources import files
from typing import Any, TypeVar

import yaml

Config = TypeVar("Config")


def recommended(trained: Any) -> str:
    """The preset for a model that is not mini, by what is trained of it."""
    return "recommended-full" if trained in ("full", "last_layers") else "recommended"


@functools.cache
def presets() -> dict[str, dict[str, Any]]:
    """Every shipped preset by name: settings of TrainConfig that differ from its defaults."""
    folder = files("softspoken") / "presets"
    return {
        item.name.removesuffix(".yaml"): yaml.safe_load(item.read_text(encoding="utf-8"))
        for item in sorted(folder.iterdir(), key=lambda item: item.name)
        if item.name.endswith(".yaml")
    }


def follows_the_model(config_class: type[Config]) -> type[Config]:
    """Where `model` is not mini, what is not given comes from the preset `recommended`."""
    plain: Callable[..., None] = config_class.__init__
    names = [field.name for field in dataclasses.fields(config_class) if not field.kw_only]  # type: ignore[arg-type]

    @functools.wraps(plain)
    def init(self: Any, *values: Any, **settings: Any) -> None:
        given = dict(zip(names, values, strict=False)) | settings
        own = given.get("model", "mini") == "mini" or given.get("resume") is not None
        preset = {} if own else presets()[recommended(given.get("trained"))]
        taken = {name: to for name, to in preset.items() if name not in given}
        plain(self, *values, **settings, **taken)

    config_class.__init__ = init  # type: ignore[method-assign]
    return config_class


def followed(config: Any) -> dict[str, Any]:
    """What a configuration has as the preset for its model has it."""
    preset = presets()[recommended(config.trained)] if config.model != "mini" else {}
    return {name: value for name, value in preset.items() if getattr(config, name) == value}
