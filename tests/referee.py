"""ruamel.yaml, with which Kometa reads its config, says whether an edit came out right.

Reads a JSON list of cases on standard input, each with the old text, the new
text, the provider's name and what its block must say afterwards ("block"), and whether the
once-key must be null ("clears"). A case that is "tampered" with must be found wrong. Prints one line a wrong case and exits 1 if there is any.
Never prints a value.
"""

import copy
import json
import sys

from ruamel.yaml import YAML
from ruamel.yaml.compat import StringIO


def loaders():
    """As Kometa loads (round trip, and it keeps quotes), and the plain reading."""
    kometa = YAML()
    kometa.preserve_quotes = True
    return {"round trip": kometa, "safe": YAML(typ="safe", pure=True)}


def plain(node, inside=()):
    """Plain Python values out of ruamel's own, merge keys followed; circles cut."""
    if id(node) in inside:
        return "circle"
    inside = inside + (id(node),)
    if isinstance(node, dict):
        return {repr(plain(key, inside)): plain(value, inside) for key, value in node.items()}
    if isinstance(node, (list, tuple)):
        return [plain(item, inside) for item in node]
    if isinstance(node, (set, frozenset)):
        return sorted(repr(plain(item, inside)) for item in node)
    if isinstance(node, bool) or node is None:
        return node
    for kind in (str, int, float):
        if isinstance(node, kind):
            return kind(node)
    value = getattr(node, "value", None)
    if str(getattr(node, "tag", "")) == "tag:yaml.org,2002:str":
        return str(node)
    return [str(getattr(node, "tag", type(node).__name__)), str(node) if value is None else str(value)]


def load(text, name):
    return plain(loaders()[name].load(StringIO(text)))


def wrong(case, name):
    try:
        old = load(case["old"], name)
    except Exception as error:
        # What Kometa cannot read itself is no promise of ours: it is counted.
        return None, type(error).__name__
    try:
        new = load(case["new"], name)
    except Exception as error:
        return f"does not load any more ({type(error).__name__})", None
    section, once = repr(case["provider"]), repr(case["once"])
    expected = copy.deepcopy(old)
    if case["block"]:
        written = [value for value in case["block"].values() if value is not None]
        if written and expected[section].get(repr("authorization")) is None:
            expected[section][repr("authorization")] = {}
        for key, value in case["block"].items():
            block = expected[section].get(repr("authorization"))
            if value is not None or repr(key) in (block or {}):
                block[repr(key)] = value
    if case["clears"] and once in expected[section]:
        expected[section][once] = None
    if new[section] != expected[section]:
        return "the section is not what it should be", None
    if new != expected:
        return "something else changed", None
    return None, None


def main():
    cases = json.load(sys.stdin)
    unread, failures = {}, 0
    for case in cases:
        for name in loaders():
            failure, unreadable = wrong(case, name)
            if case.get("tampered"):
                failure = None if failure else "tampered with, and not noticed"
            if failure:
                failures += 1
                print(f"{case['name']} ({name}): {failure}")
            # The plain reading knows no tags but YAML's own: only Kometa's way is worth a word.
            if unreadable and name == "round trip":
                unread.setdefault(case["name"], unreadable)
    for name, error in unread.items():
        print(f"note: {name}: ruamel.yaml does not read the old text either ({error})")
    print(f"{len(cases)} texts, {failures} wrong, {len(unread)} unreadable before")
    return 1 if failures or not cases else 0


if __name__ == "__main__":
    sys.exit(main())
