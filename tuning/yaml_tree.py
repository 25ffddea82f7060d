"""A YAML file as a tree of nodes that is safe to walk: no bomb of aliases, no endless nesting, no giant scalars."""

from __future__ import annotations

import yaml

MAX_DEPTH = 40
MAX_NODES = 500_000
"""Nodes after every alias is written out; ten thousand services have less."""
MAX_SCALAR = 4096
MAX_MERGED = 100
_MERGE = "tag:yaml.org,2002:merge"


class NotReadable(ValueError):
    """The file as a whole cannot be used; `str` is the sentence, line where it shows (1-based)."""

    def __init__(self, message: str, line: int = 1) -> None:
        super().__init__(message)
        self.line = line


def compose(text: str) -> yaml.MappingNode:
    """The root of the tree. Raises NotReadable."""
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = (error.problem or "").replace("\n", " ")[:200]
        hint = ": indent with blanks" if "\\t" in problem else ""
        raise NotReadable(f"is not YAML: {problem}{hint}", mark.line + 1 if mark else 1) from error
    except yaml.YAMLError as error:
        raise NotReadable("is not YAML: it holds characters that no text has") from error
    except RecursionError as error:
        raise NotReadable(f"is nested more than {MAX_DEPTH} levels deep") from error
    except (ValueError, OverflowError) as error:
        raise NotReadable("is not YAML") from error
    if root is None:
        raise NotReadable("the file is empty: at least `services:` is needed")
    if not isinstance(root, yaml.MappingNode):
        raise NotReadable("must be a mapping with the key `services`")
    _weigh(root, {}, 0)
    return root


def _weigh(node: yaml.Node, known: dict[int, int], depth: int) -> int:
    """Nodes below and with this one, aliases written out. known: by id, 0 while it is being weighed."""
    line = node.start_mark.line + 1
    if known.get(id(node)) == 0:
        raise NotReadable("an alias (*name) stands inside of what it names", line)
    if id(node) in known:
        return known[id(node)]
    if depth > MAX_DEPTH:
        raise NotReadable(f"is nested more than {MAX_DEPTH} levels deep", line)
    known[id(node)] = 0
    total = 1
    for part in _parts(node):
        total += _weigh(part, known, depth + 1)
        if total > MAX_NODES:
            raise NotReadable(f"its aliases (*name) add up to more than {MAX_NODES:,} values: write them out", line)
    known[id(node)] = total
    return total


def _parts(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.tag == _MERGE and isinstance(value, yaml.SequenceNode) and len(value.value) > MAX_MERGED:
                raise NotReadable(f"`<<` merges more than {MAX_MERGED} mappings", key.start_mark.line + 1)
        return [part for pair in node.value for part in pair]
    if isinstance(node, yaml.SequenceNode):
        return list(node.value)
    if len(node.value) > MAX_SCALAR:
        raise NotReadable(f"a value of more than {MAX_SCALAR} characters", node.start_mark.line + 1)
    return []


def merged(node: yaml.MappingNode) -> list[tuple[yaml.Node, yaml.Node]]:
    """Keys and values with `<<: *other` written out; a key of the mapping's own goes before a merged one."""
    own: list[tuple[yaml.Node, yaml.Node]] = []
    others: dict[str, tuple[yaml.Node, yaml.Node]] = {}
    for key, value in node.value:
        if key.tag != _MERGE:
            own.append((key, value))
            continue
        for source in value.value if isinstance(value, yaml.SequenceNode) else [value]:
            for inner in merged(source) if isinstance(source, yaml.MappingNode) else []:
                others.setdefault(str(inner[0].value), inner)
    names = {str(key.value) for key, _ in own}
    return [*own, *(pair for name, pair in others.items() if name not in names)]
