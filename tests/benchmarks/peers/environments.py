"""An environment of its own for each peer, with the versions of its requirements file."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from pathlib import Path

from attrs import frozen

__all__ = ["Environment", "EnvironmentFailed"]

HERE = Path(__file__).parent


class EnvironmentFailed(Exception):
    """A peer could not be installed."""


@frozen
class Environment:
    """Where a peer lives.

    Attributes:
        name: of the requirements file beside this module, and of the environment.
        work: the directory that holds the environments.
    """

    name: str
    work: Path

    @property
    def requirements(self) -> Path:
        """The file of pinned versions."""
        return HERE / f"{self.name}.txt"

    @property
    def directory(self) -> Path:
        return self.work / f"venv-{self.name}"

    @property
    def python(self) -> str:
        """Its interpreter."""
        folder, suffix = ("Scripts", ".exe") if os.name == "nt" else ("bin", "")
        return str(self.directory / folder / f"python{suffix}")

    def version(self, package: str) -> str:
        """The pinned version of a package."""
        pins = dict(line.split("==") for line in self.requirements.read_text("utf-8").split())
        return pins[package]

    def make(self) -> None:
        """Make the environment, unless it is there with these very versions.

        Raises:
            EnvironmentFailed: something of it can't be installed.
        """
        wanted = f"{sys.version}\n{self.requirements.read_text('utf-8')}"
        made = self.directory / "requirements.made"
        if made.exists() and made.read_text("utf-8") == wanted:
            return
        venv.create(self.directory, clear=True, with_pip=True)
        command = [self.python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        done = subprocess.run(
            [*command, "--requirement", str(self.requirements)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            print(done.stderr, file=sys.stderr)
            last = done.stderr.strip().splitlines()[-1:]
            raise EnvironmentFailed(f"pip install --requirement {self.requirements.name}: {last}")
        made.write_text(wanted, "utf-8")
