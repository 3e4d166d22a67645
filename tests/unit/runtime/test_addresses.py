"""An address that is another's, or none, is said by every server before it loads anything."""

import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ports import reserved_port
from softspoken.config import DemoConfig, ScoreConfig, ServeConfig
from softspoken.runtime.addresses import require_free
from softspoken.types import InputError


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        yield other.getsockname()[1]


def test_an_address_is_free_taken_or_none(taken: int) -> None:
    with reserved_port() as port:
        require_free("127.0.0.1", port)
        require_free("localhost", 0)
    says = rf"port {taken} of 127.0.0.1 cannot be listened at \(Address already in use\); is another server there\? give another"
    with pytest.raises(InputError, match=says):
        require_free("127.0.0.1", taken)
    with pytest.raises(InputError, match=r"port 8000 of 203.0.113.7 cannot be listened at \(Cannot assign"):
        require_free("203.0.113.7", 8000)
    with pytest.raises(InputError, match=r"port 80 of no\.\.such cannot be listened at"):
        require_free("no..such", 80)


def by_serve(port: int) -> None:
    from softspoken.serving.serve import prepared

    prepared(ServeConfig(model="no/such/model", port=port))


def by_demo(port: int) -> None:
    from softspoken.serving.demo import demo

    demo(DemoConfig(model="no/such/model", port=port))


def by_score(port: int) -> None:
    from softspoken.rewards.server import serve

    serve(ScoreConfig(reward="hf:no/such/model:x", serve=f"127.0.0.1:{port}"))


@pytest.mark.parametrize("server", [by_serve, by_demo, by_score])
def test_each_server_looks_first(server: Callable[[int], Any], taken: int) -> None:
    pytest.importorskip("uvicorn")
    with pytest.raises(InputError, match=f"port {taken} of 127.0.0.1 cannot be listened at"):
        server(taken)
