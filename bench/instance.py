"""A whole instance of Trivet beside the machine's own one, with the real engines; needs root."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.measure import say
from trivet.client import Client
from trivet.client.config import ClientConfig, load_config
from trivet.host.config_files import new_settings
from trivet.host.layout import Layout


class Instance:
    """One that is up."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self._env = {
            **os.environ,
            "TRIVET_ROOT": str(layout.root),
            "TRIVET_CONFIG": str(layout.etc / "client.toml"),
        }

    def trivet(self, *arguments: str) -> str:
        """Run a command of the checkout for this instance; its output."""
        argv = [str(Path(sys.executable).parent / "trivet"), *arguments]
        done = subprocess.run(argv, env=self._env, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"trivet {' '.join(arguments)}: {done.stderr.strip()[-1000:]}")
        return done.stdout

    def client(self) -> Client:
        """A client of its API."""
        config: ClientConfig = load_config(self._env)
        return Client.of(config)


@contextmanager
def instance(more_settings: str = "") -> Iterator[Instance]:
    """An instance that is ready, and of which nothing is left in the end; its settings are the
    usual ones and `more_settings`."""
    if os.geteuid() != 0:
        raise SystemExit("trivet: this benchmark needs root")
    with tempfile.TemporaryDirectory(prefix="trivet-bench-") as folder:
        os.chmod(folder, 0o755)  # services of other users live below it
        made = Instance(Layout(Path(folder)))
        if more_settings:
            made.layout.settings_file.parent.mkdir(parents=True)
            made.layout.settings_file.write_text(new_settings(made.layout) + more_settings)
        try:
            made.trivet("up")
            say("an instance is up")
            yield made
        finally:
            made.trivet("down", "--purge")
