"""Jupyter's kernels, as the site wants them.

Tutorials run at the same time in several processes of Sphinx, each with a kernel of five ports. Jupyter looks for ports that are free and lets
go of them until the kernel takes them; two processes may so be given the same one. Here they count together.
"""

import multiprocessing
import socket

from jupyter_client.provisioning.local_provisioner import LocalPortCache
from sphinx.application import Sphinx

BEFORE = 20_000
"""Below the ports that a system gives to those who ask for any."""
taken = multiprocessing.Value("i", BEFORE)


class CountedPorts(LocalPortCache):
    def find_available_port(self, ip: str) -> int:
        while True:
            with taken.get_lock():
                taken.value += 1
                port = taken.value
            with socket.socket() as tried:
                try:
                    tried.bind((ip, port))
                except OSError:  # somebody else's
                    continue
            return port


def setup(app: Sphinx) -> dict[str, bool]:
    CountedPorts.instance()  # for who asks for a LocalPortCache, too
    return {"parallel_read_safe": True, "parallel_write_safe": True}
