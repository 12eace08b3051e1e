"""The chart's rules with a minute as a second: what is tested are the shipped expressions, sixty times as fast."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import yaml

RULES = sorted((Path(__file__).parents[2] / "helm" / "docpreview-gateway" / "rules").glob("*.yaml"))
MINUTE = 60
_SHORTER = {"s": "ms", "m": "s", "h": "m"}
_RANGE = re.compile(r"(?<=\[)(\d+)([smhd])(?=\])|(?<=offset )(\d+)([smh])\b")
_AGE = re.compile(r"((?<!_timestamp)_seconds\)) > (\d+)")
"""An age in seconds and its threshold, as in `max by (job) (docpreview_list_lag_seconds) > 60`.

Not what is compared with the clock, such as the time of the last round: rounds are as far apart as ever.
"""


def shortened(text: str) -> str:
    """A duration of Prometheus with a minute as a second; what is in seconds becomes milliseconds."""
    number, unit = int(text[:-1]), text[-1]
    if unit == "d":
        return f"{24 * number}m"
    return f"{number * 1000 // MINUTE}ms" if unit == "s" else f"{number}{_SHORTER[unit]}"


def _expression(text: str) -> str:
    text = _RANGE.sub(lambda found: shortened(found[0]), text)
    return _AGE.sub(lambda found: f"{found[1]} > {int(found[2]) / MINUTE:g}", text)


def short_rules(path: Path) -> dict[str, Any]:
    """The rules of a file: ranges, offsets, `for`, intervals and thresholds of ages are a sixtieth, all else stays."""
    rules: dict[str, Any] = yaml.safe_load(path.read_text())
    for group in rules["groups"]:
        group["interval"] = shortened(group["interval"])
        for rule in group["rules"]:
            rule["expr"] = _expression(rule["expr"])
            if "for" in rule:
                rule["for"] = shortened(rule["for"])
    return rules


def write_short_rules(folder: Path) -> list[Path]:
    """All rules of the chart, shortened, as files."""
    written = []
    for path in RULES:
        short = folder / path.name
        short.write_text(json.dumps(short_rules(path)))
        written.append(short)
    return written


def alerts() -> dict[str, dict[str, Any]]:
    """The alerts of the chart by their names."""
    groups = [group for path in RULES for group in yaml.safe_load(path.read_text())["groups"]]
    return {rule["alert"]: rule for group in groups for rule in group["rules"] if "alert" in rule}
