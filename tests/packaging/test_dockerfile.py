"""The Dockerfile, without building it (that is done in tests/image)."""

from __future__ import annotations

import re

from tests.packaging.project import ROOT, pyproject, run, tool

DOCKERFILE = ROOT / "Dockerfile"


def test_hadolint_finds_nothing_in_the_dockerfile() -> None:
    """The linter (hadolint) finds nothing, and what it was told to overlook has its reason above."""
    done = run(tool("hadolint"), "--no-color", DOCKERFILE)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_dockerfiles_labels_have_the_projects_version() -> None:
    """The labels have the version of the project."""
    versions = set(re.findall("^ARG VERSION=(.*)$", DOCKERFILE.read_text(), re.MULTILINE))
    assert versions == {pyproject()["project"]["version"]}


def test_only_what_the_lock_names() -> None:
    """Distributions come from the lock with their hashes; nothing else is asked of an index."""
    installs = re.findall(r"/pip (?:--python \S+ )?(?:install|wheel|download) [^\\\n]*", DOCKERFILE.read_text())
    assert len(installs) >= 4
    for line in installs:
        assert "--require-hashes" in line or "--no-index" in line or "--no-deps --no-build-isolation" in line


def test_no_secret_travels_with_the_sources() -> None:
    """Only named folders reach the builder: a stray key file in the checkout stays out of it."""
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    assert next(line for line in lines if not line.startswith("#")) == "*"
