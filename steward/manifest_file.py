"""Manifests from a YAML file: each document with the place it stands at, and nothing said twice."""

import sys
from collections.abc import Hashable
from pathlib import Path
from typing import Any

from fleet.errors import BadInput


def read_manifests(file: Path) -> tuple[list[object], list[str]]:
    """Return the documents of a file ("-": stdin) and where each begins (`file:line`).

    Raises `BadInput` where it is no YAML, holds no document, or a mapping says something twice.
    """
    import yaml  # noqa: PLC0415 - few commands need it

    class Loader(yaml.SafeLoader):
        """Reads plain values only, and refuses a key that stands twice in a mapping."""

        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:  # noqa: FBT001, FBT002 - the library's signature
            names = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
            twice = sorted({name for name in names if names.count(name) > 1})
            if twice:
                message = f"{name_of}:{node.start_mark.line + 1}: {twice[0]} stands there twice"
                raise BadInput(message, place=name_of, field=twice[0])
            return super().construct_mapping(node, deep)

    name_of = "stdin" if str(file) == "-" else str(file)
    try:
        text = sys.stdin.read() if str(file) == "-" else file.read_text()
        nodes, whole = list(yaml.compose_all(text, Loader)), list(yaml.load_all(text, Loader))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        message = f"{name_of}: can't be read as manifests: {error}"
        raise BadInput(message, place=name_of) from error
    found = [(each, node) for each, node in zip(whole, nodes, strict=True) if each is not None]
    if not found:
        message = f"{name_of}: there is no manifest in it"
        raise BadInput(message, place=name_of)
    return [each for each, _ in found], [f"{name_of}:{node.start_mark.line + 1}" for _, node in found]
