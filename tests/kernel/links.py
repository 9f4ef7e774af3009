"""Scenarios whose phones have a link that is written in YAML."""

from typing import Any

from ruamel.yaml import YAML


def scenario(link: str) -> dict[str, Any]:
    """Return the mapping of such a scenario."""
    return {
        "name": "kernel",
        "dataset": {"kind": "digits", "examples": 64},
        "partition": {"kind": "iid"},
        "model": {"kind": "twonn", "hidden": 500},
        "training": {"epochs": 1, "batch_size": 64, "lr": 0.1},
        "strategy": {"kind": "fedavg"},
        "clients": {"phones": {"count": 1, "link": YAML(typ="safe").load(link)}},
        "stop": {"rounds": 2},
        "compute": {"kind": "inline"},
    }
