"""YAML read safely: plain values under keys that are texts, each once, and nothing endless."""

from pathlib import Path
from typing import Any

import yaml
from yaml.constructor import ConstructorError

from tsf_seq2seq.errors import UserError
from tsf_seq2seq.files.reading import regular

LARGEST_TEXT = 100_000  # signs; settings have thousands
MOST_VALUES = 10_000  # with those that aliases repeat
TEXT, MERGE = "tag:yaml.org,2002:str", "tag:yaml.org,2002:merge"


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping that a YAML file holds; UserError where it can't be read or holds none."""
    try:
        with open(path, encoding="utf-8-sig", opener=regular) as file:
            values = parse_yaml(file.read(LARGEST_TEXT + 1))
    except FileNotFoundError:
        raise UserError(f"config file {path} does not exist") from None
    except yaml.YAMLError as error:
        raise UserError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    except (OSError, ValueError) as error:  # ValueError: not UTF-8, or a name with a null character
        raise UserError(f"config file {path} can't be read: {error}") from None
    if values is not None and not isinstance(values, dict):
        raise UserError(f"{path} must hold a mapping of keys, not {type(values).__name__}")
    return values or {}


def parse_yaml(text: str) -> Any:
    """The value of a YAML text; yaml.YAMLError, which names the line, whatever is wrong with it."""
    if len(text) > LARGEST_TEXT:
        raise yaml.YAMLError(f"it is longer than {LARGEST_TEXT} signs")
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _check(node, {})
        return loader.construct_document(node)
    except RecursionError:
        raise yaml.YAMLError("it is nested too deeply") from None
    finally:
        loader.dispose()


class _Loader(yaml.SafeLoader):
    """Safe reading, in which a value that PyYAML fails on is an error of the text."""

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Merge what << names; of a key that it has, too, the mapping's own value alone is kept.

        PyYAML keeps both, the own one last; where it merges such a mapping into another, 6.0.4
        takes the first of keys of one letter.
        """
        super().flatten_mapping(node)
        node.value = list({key.value: (key, value) for key, value in node.value}.values())

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (yaml.YAMLError, RecursionError):
            raise
        except Exception:
            kind = node.tag.rpartition(":")[2]
            shown = str(node.value)[:40]
            raise _error(node, f"'{shown}' can't be read as {kind}: put it in quotes") from None


def _check(node: yaml.Node, sizes: dict[int, int]) -> int:
    """How many values a node stands for, with aliases written out; `sizes`: of those seen before.

    Raises a ConstructorError for a node that holds itself, more than MOST_VALUES, and keys that are
    no texts or stand twice.
    """
    if id(node) in sizes:
        if sizes[id(node)] == 0:
            raise _error(node, "what an alias repeats holds the alias itself")
        return sizes[id(node)]
    sizes[id(node)] = 0
    children = []
    if isinstance(node, yaml.MappingNode):
        _check_keys(node)
        children = [value for _, value in node.value]
    elif isinstance(node, yaml.SequenceNode):
        children = node.value
    size = 1 + sum(_check(child, sizes) for child in children)
    if size > MOST_VALUES:
        raise _error(node, f"it holds more than {MOST_VALUES} values")
    sizes[id(node)] = size
    return size


def _check_keys(node: yaml.MappingNode) -> None:
    found = set()
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode) or key.tag not in (TEXT, MERGE):
            shown = f"'{key.value}'" if isinstance(key, yaml.ScalarNode) else "of several values"
            kind = key.tag.rpartition(":")[2]
            raise _error(key, f"key {shown} is read as {kind}, not as text: put it in quotes")
        if key.value in found:
            raise _error(key, f"key '{key.value}' stands twice")
        found.add(key.value)


def _error(node: yaml.Node, problem: str) -> ConstructorError:
    return ConstructorError(None, None, problem, node.start_mark)
