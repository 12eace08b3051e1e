"""Static checks of the Dockerfile; tests/image builds it."""

from __future__ import annotations

import re

from tests.packaging.project import ROOT, run, tool

DOCKERFILE = ROOT / "Dockerfile"


def test_hadolint_finds_nothing_in_the_dockerfile() -> None:
    """Every ignored rule has its reason in a comment above."""
    done = run(tool("hadolint"), "--no-color", DOCKERFILE)
    assert (done.returncode, done.stdout) == (0, "")


def test_no_layer_depends_on_version_or_commit() -> None:
    """`make image` gives them as labels: with ARG buildah takes a label of an earlier commit from its cache."""
    assert re.findall("^ARG (?!BASE_IMAGE|RUNTIME_IMAGE|OFFICE).*", DOCKERFILE.read_text(), re.MULTILINE) == []
    assert "--label org.opencontainers.image.revision=" in (ROOT / "Makefile").read_text()


def test_every_installed_distribution_comes_from_the_lock_with_its_hash() -> None:
    """No other pip command uses an index."""
    installs = re.findall(r"/pip (?:--python \S+ )?(?:install|wheel|download) [^\\\n]*", DOCKERFILE.read_text())
    assert len(installs) >= 4
    for line in installs:
        assert "--require-hashes" in line or "--no-index" in line or "--no-deps --no-build-isolation" in line


def test_the_command_that_asks_an_index_takes_the_authorities_and_the_pip_conf_of_whoever_builds() -> None:
    """No other command does, and none mounts over a file: buildah 1.28 deletes what is below."""
    commands = re.findall(r"^RUN (.*?[^\\])$", DOCKERFILE.read_text(), re.MULTILINE | re.DOTALL)
    (fetching,) = [text for text in commands if "--mount" in text]
    assert fetching.startswith("--mount=type=secret,id=ca --mount=type=secret,id=pip ")
    assert [text for text in commands if "--require-hashes" in text] == [fetching]


def test_only_named_folders_are_in_the_build_context() -> None:
    """A stray key file in the checkout does not reach the builder."""
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    assert next(line for line in lines if not line.startswith("#")) == "*"
