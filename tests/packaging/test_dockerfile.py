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


def test_every_command_that_fetches_takes_the_authorities_of_whoever_builds() -> None:
    """Behind a proxy that inspects TLS it would trust nobody; with pip comes its configuration, for another index."""
    commands = re.findall(r"^RUN (.*?[^\\])$", DOCKERFILE.read_text(), re.MULTILINE | re.DOTALL)
    fetching = [text for text in commands if "apt-get" in text or "--require-hashes" in text]
    assert len(fetching) == 2
    for text in fetching:
        assert text.startswith("--mount=type=secret,id=ca,target=/etc/ssl/certs/ca-certificates.crt ")
        assert ("--mount=type=secret,id=pip,target=/etc/pip.conf " in text) == ("--require-hashes" in text)


def test_only_named_folders_are_in_the_build_context() -> None:
    """A stray key file in the checkout does not reach the builder."""
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    assert next(line for line in lines if not line.startswith("#")) == "*"
