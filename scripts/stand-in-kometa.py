#!/usr/bin/env python3
"""What Kometa does with its config at each start, and nothing more.

Loads the file with ruamel.yaml, asks Trakt whether the token is good, and
dumps the whole file over the old one in place. For scripts/try-docker, where
Kometa's own image cannot be had.
"""

import os
import pathlib
import sys
import urllib.request

import ruamel.yaml

path = pathlib.Path("/config/config.yml")
yaml = ruamel.yaml.YAML()
# As Kometa sets it up.
yaml.width = 100000
yaml.indent(mapping=2, sequence=2)
config = yaml.load(path.read_text())
(path.parent / "logs").mkdir(exist_ok=True)
log = open(path.parent / "logs" / "meta.log", "a")
trakt = config["trakt"]
request = urllib.request.Request(
    os.environ["TRAKT_API"] + "/users/settings",
    headers={
        "Authorization": "Bearer " + trakt["authorization"]["access_token"],
        "trakt-api-version": "2",
        "trakt-api-key": trakt["client_id"],
        "User-Agent": "stand-in",
    },
)
try:
    urllib.request.urlopen(request, timeout=10)
except OSError as error:
    print(f"Trakt refuses the token: {error}", file=log)
    sys.exit(f"Trakt refuses the token: {error}")
print("Trakt accepts the token")
print("Trakt accepts the token", file=log)
config["settings"]["seen"] = True
with path.open("w") as file:
    yaml.dump(config, file)
