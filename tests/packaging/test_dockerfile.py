"""Static checks of the Dockerfile; tests/image builds it."""

from __future__ import annotations

import re

from tests.packaging.project import ROOT, pyproject, run, tool

DOCKERFILE = ROOT / "Dockerfile"


def test_hadolint_finds_nothing_in_the_dockerfile() -> None:
    """Every ignored rule has its reason in a comment above."""
    done = run(tool("hadolint"), "--no-color", DOCKERFILE)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_dockerfiles_labels_have_the_projects_version() -> None:
    """The default of ARG VERSION."""
    versions = set(re.findall("^ARG VERSION=(.*)$", DOCKERFILE.read_text(), re.MULTILINE))
    assert versions == {pyproject()["project"]["version"]}


def test_every_installed_distribution_comes_from_the_lock_with_its_hash() -> None:
    """No other pip command uses an index."""
    installs = re.findall(r"/pip (?:--python \S+ )?(?:install|wheel|download) [^\\\n]*", DOCKERFILE.read_text())
    assert len(installs) >= 4
    for line in installs:
        assert "--require-hashes" in line or "--no-index" in line or "--no-deps --no-build-isolation" in line


def test_only_named_folders_are_in_the_build_context() -> None:
    """A stray key file in the checkout does not reach the builder."""
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    assert next(line for line in lines if not line.startswith("#")) == "*"
