"""A session finds what a reader would: commands that fail, print something else, or name what is not there."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.documents.blocks import Block
from tests.documents.session import Session

if TYPE_CHECKING:
    from pathlib import Path

POD = "pod/preview-docpreview-gateway-7c9d6b5f4-x2x4p"
SELECTOR = "app.kubernetes.io/name=docpreview-gateway,app.kubernetes.io/component=gateway"
VALUES = "# values.yaml\ncredentials:\n  main: {secretName: cloud-keys}\n"


def console(text: str) -> Block:
    return Block("a.md", 1, "console", text)


async def test_commands_share_one_shell_and_print_what_the_document_shows(tmp_path: Path) -> None:
    """Variables and files are those of the commands before; `...` stands for anything in a line."""
    block = console("$ NAME=cloud; cat > a.txt <<'EOF'\nkeys: many\nEOF\n$ cat a.txt\nkeys: ...\n$ echo $NAME\ncloud\n")
    assert "cloud" in (await Session(tmp_path / "session").run([block]))[block]


async def test_a_block_with_the_name_of_a_file_is_that_file_for_the_commands_after_it(tmp_path: Path) -> None:
    file = Block("a.md", 1, "yaml", "# a/gateway.yaml: one bucket\nlisten: 127.0.0.1:50051\n")
    command = console("$ cat a/gateway.yaml\nlisten: 127.0.0.1:1\n")
    await Session(tmp_path / "session", {"127.0.0.1:50051": "127.0.0.1:1"}).run([file, command])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("$ true\n$ false\n$ true\n", "a command failed"),
        ("$ echo one\ntwo\n", "echo one printed"),
        ("$ docpreview-gateway check-config --config missing.yaml\n", "missing.yaml"),
        ("$ kubectl logs deploy/docpreview-gateway\n", "selects no pod of a release"),
        ("$ kubectl logs -l app=docpreview-gateway\n", "selects no pod of a release"),
        ("$ kubectl exec deploy/docpreview-gateway -- date\n", "is no pod of a release"),
        (f"$ kubectl exec {POD} -c sidecar -- date\n", "is no pod of a release"),
        ("$ kubectl --namespace docs create secret generic a --from-literal=b=c\n", 'namespaces "docs" not found'),
        ("$ kubectl scale deploy/docpreview-gateway\n", "no test knows what kubectl scale does"),
        ("$ helm --namespace docs install preview helm/docpreview-gateway\n", 'namespaces "docs" not found'),
        ("$ helm install preview helm/docpreview-gateway --values values.yaml\n", "needs a Secret cloud-keys"),
        ("$ helm test preview\n", "release: not found"),
    ],
)
async def test_what_would_fail_for_a_reader_fails_the_session(text: str, message: str, tmp_path: Path) -> None:
    """The output of the command is in the error."""
    session = Session(tmp_path / "session")
    session.write("values.yaml", VALUES)
    with pytest.raises(AssertionError, match=re.escape(message)):
        await session.run([console(text)])


async def test_pods_of_a_release_are_found_by_the_labels_of_the_chart(tmp_path: Path) -> None:
    """A command in a pod runs here."""
    found = f"$ POD=$(kubectl get pod -l {SELECTOR} -o name | head -1)\n"
    text = f"{found}$ kubectl exec $POD -c gateway -- echo inside\ninside\n"
    await Session(tmp_path / "session").run([console(text)])
