"""Programs of documents that need more than one machine has, and what stands in for them in a test.

A session puts them on its PATH (`python -m tests.documents.stand_ins NAME ...`). What a command can do here it does:
`kubectl exec` runs its command beside a real gateway, `kubectl logs` prints the log of this gateway, the real programs
check `kubectl create` and `helm install`, without a cluster. A name that no release has is an error.
"""

from __future__ import annotations

import itertools
import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import yaml

from tests.packaging.project import ROOT
from tests.programs import find

POD = "preview-docpreview-gateway-7c9d6b5f4-x2x4p"
CONTAINERS = {"gateway", "edge"}
DEV = "dev"
"""Name of the file with the process of `docpreview-gateway dev`."""
_SERVING_SECONDS = 60.0
_WATCHED_SECONDS = 3.0
"""What goes on until it is interrupted is watched for so long."""


def real(name: str) -> str:
    """The program itself, which this one hides on the PATH of a session."""
    found = _find(name)
    if found is None:
        raise SystemExit(f"{name} is not installed")
    return found


def _find(name: str) -> str | None:
    os.environ["PATH"] = os.environ["PATH"].replace(os.environ["STAND_INS"], "")
    return find(name)


def run(*words: str) -> int:
    return subprocess.run(words, check=False).returncode


def serve(name: str, words: list[str]) -> int:
    """A server goes on in the background until the session ends; it is there when its port answers."""
    folder = Path(os.environ["SESSION"])
    host, _, port = os.environ["EMULATOR" if name == "docpreview-emulator" else "DOCPREVIEW_ADMIN_LISTEN"].partition(
        ":"
    )
    own = ["--port", port] if name == "docpreview-emulator" else []
    for before in (name, DEV):
        _stop(folder / f"{before}.pid")  # as a reader does, who starts it again
    log = folder / f"{name}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", name.replace("-", "_"), *words, *own],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    (folder / f"{name}.pid").write_text(str(process.pid))
    end = time.monotonic() + _SERVING_SECONDS
    while time.monotonic() < end and process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex((host, int(port))) == 0:
                return 0
        time.sleep(0.05)
    sys.stderr.write(log.read_text())
    return 1


def dev(words: list[str]) -> int:
    """Emulator and gateway go on in the background; what they print when they serve is printed here."""
    folder = Path(os.environ["SESSION"])
    _stop(folder / f"{DEV}.pid")
    names = {"--port": "DOCPREVIEW_LISTEN", "--admin-port": "DOCPREVIEW_ADMIN_LISTEN", "--emulator-port": "EMULATOR"}
    ports = [word for option, name in names.items() for word in (option, os.environ[name].rpartition(":")[2])]
    process = subprocess.Popen(
        [sys.executable, "-m", "docpreview_gateway", *words, *ports],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        start_new_session=True,
        text=True,
    )
    (folder / f"{DEV}.pid").write_text(str(process.pid))
    assert process.stdout is not None
    lines = list(itertools.islice(process.stdout, 4))
    sys.stdout.writelines(lines)
    return 0 if len(lines) == 4 else 1


def _stop(pid: Path) -> None:
    """End the server before, which is a process of this session's."""
    if pid.exists():
        number = int(pid.read_text())
        os.kill(number, 15)
        end = time.monotonic() + _SERVING_SECONDS
        while time.monotonic() < end and Path(f"/proc/{number}").exists():
            time.sleep(0.05)
        pid.unlink()


def command(name: str, words: list[str]) -> int:
    """A command of ours."""
    if words[:1] == ["serve"]:
        return serve(name, words)
    if words[:1] == ["dev"]:
        return dev(words)
    return run(sys.executable, "-m", name.replace("-", "_"), *words)


def kubectl(words: list[str]) -> int:
    """What a cluster would do, for the verbs of the documents."""
    (verb, *rest), namespace = _without(words, "--namespace", "-n")
    if namespace is not None and f"namespace {namespace}" not in _made():
        raise SystemExit(f'Error from server (NotFound): namespaces "{namespace}" not found')
    if verb not in VERBS:
        raise SystemExit(f"no test knows what kubectl {verb} does: teach it to tests/documents/stand_ins.py")
    return VERBS[verb](rest)


def _create(words: list[str]) -> int:
    kind = words[0]
    name = next(word for word in words[1:] if not word.startswith("-") and word != "generic")
    _make(f"{kind} {name}")
    own = _find("kubectl")  # checks the words, where it is installed
    return run(own, "create", *words, "--dry-run=client", "--output", "name") if own else 0


def _logs(words: list[str]) -> int:
    words, container = _without(words, "-c")
    _selects(words)
    sys.stdout.write(Path(os.environ["EDGE_LOG" if container == "edge" else "GATEWAY_LOG"]).read_text())
    return 0


def _get(words: list[str]) -> int:
    kind, *rest = words
    if kind == "pod":
        left = _selects(rest)
        sys.stdout.write(f"pod/{POD}\n" if left == ["-o", "name"] else f"NAME  READY  STATUS\n{POD}  1/1  Running\n")
    else:
        sys.stdout.writelines(f"{one}/preview-docpreview-gateway\n" for one in kind.split(","))
    return 0


def _exec(words: list[str]) -> int:
    """The command runs beside the gateway, as it would in its container."""
    place = words.index("--")
    _names_a_pod([word for word in words[:place] if not word.startswith("--image=")])
    status = run(*words[place + 1 :])
    return 0 if "doctor" in words and status == 1 else status  # it has found something, which is what it is asked for


def _port_forward(words: list[str]) -> int:
    """The session puts the real address in the place of the forwarded one."""
    _names_a_pod(words[:-1])
    return 0


def _describe(words: list[str]) -> int:
    _selects(words[1:])
    sys.stdout.write("    Last State:     Terminated\n      Reason:       OOMKilled\n      Exit Code:    137\n")
    return 0


VERBS = {
    "create": _create,
    "debug": _exec,
    "describe": _describe,
    "exec": _exec,
    "get": _get,
    "logs": _logs,
    "port-forward": _port_forward,
}


def helm(words: list[str]) -> int:
    """An installation is rendered, a test asks for the release."""
    left, namespace = _without(words, "--namespace", "-n")
    match left:
        case ["install", release, *rest]:
            if namespace is not None and f"namespace {namespace}" not in _made() and "--create-namespace" not in rest:
                raise SystemExit(f'Error: namespaces "{namespace}" not found')
            for name in _secrets(rest):
                if f"secret {name}" not in _made():
                    raise SystemExit(f"{release} needs a Secret {name}, which no command before this one has made")
            _make(f"release {release}")
            return run(real("helm"), "template", release, *(word for word in rest if word != "--wait"))
        case ["test" | "upgrade" | "rollback" as verb, release, *rest]:
            if f"release {release}" not in _made():
                raise SystemExit("Error: release: not found")
            if verb == "upgrade":
                return run(real("helm"), "template", *left[1:])
            return 0
    return run(real("helm"), *words)


def redis_cli(words: list[str]) -> int:
    """What goes on until it is interrupted is interrupted."""
    if "--latency-history" in words:
        try:
            subprocess.run([real("redis-cli"), *words], check=False, timeout=_WATCHED_SECONDS)
        except subprocess.TimeoutExpired:
            return 0
    return run(real("redis-cli"), *words)


def _without(words: list[str], *names: str) -> tuple[list[str], str | None]:
    """Words without an option and its value, and the value."""
    for place, word in enumerate(words):
        if word == "--":
            break
        if word in names:
            return [*words[:place], *words[place + 2 :]], words[place + 1]
    return words, None


def _selects(words: list[str]) -> list[str]:
    """Words without a selector, which has to name labels that the chart gives to the pods of every release."""
    left, selector = _without(words, "-l")
    golden = (ROOT / "tests" / "chart" / "goldens" / "minimal.yaml").read_text()
    (deployment,) = (found for found in yaml.safe_load_all(golden) if found and found["kind"] == "Deployment")
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    wanted = dict(part.split("=") for part in (selector or "").split(",") if part)
    labels["app.kubernetes.io/instance"] = wanted.get("app.kubernetes.io/instance")  # the release, which has any name
    if not wanted or not wanted.items() <= labels.items():
        raise SystemExit(f"No resources found: {selector} selects no pod of a release")
    return left


def _names_a_pod(words: list[str]) -> None:
    left, container = _without(words, "-c")
    if left != [f"pod/{POD}"] or container not in {None, *CONTAINERS}:
        raise SystemExit(f"Error from server (NotFound): {' '.join(words)} is no pod of a release")


def _secrets(words: list[str]) -> set[str]:
    """Secrets that the values of an installation name."""
    files = [words[place + 1] for place, word in enumerate(words) if word in {"--values", "-f"}]
    return {name for path in files for name in re.findall(r"[sS]ecretName: ([\w-]+)", Path(path).read_text())}


def _made() -> set[str]:
    path = Path(os.environ["SESSION"]) / "made.txt"
    return set(path.read_text().splitlines()) if path.exists() else set()


def _make(what: str) -> None:
    with (Path(os.environ["SESSION"]) / "made.txt").open("a") as made:
        made.write(f"{what}\n")


NAMES = ("docpreview", "docpreview-gateway", "docpreview-emulator", "kubectl", "helm", "redis-cli")


def main() -> int:
    name, *words = sys.argv[1:]
    match name:
        case "docpreview":
            return run(sys.executable, "-m", "docpreview_client", *words)
        case "kubectl":
            return kubectl(words)
        case "helm":
            return helm(words)
        case "redis-cli":
            return redis_cli(words)
    return command(name, words)


if __name__ == "__main__":
    sys.exit(main())
