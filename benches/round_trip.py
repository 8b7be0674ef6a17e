"""What ruamel.yaml's round trip costs, as Kometa saves its config, on the texts of the bench.

`cargo bench --bench splice && python3 benches/round_trip.py FOLDER`, where FOLDER is
the `tmp` folder below cargo's target folder. One run a size: it is slow enough to be seen.
"""

import io
import pathlib
import sys
import time

from ruamel.yaml import YAML

for path in sorted(pathlib.Path(sys.argv[1]).glob("bench-*.yml"), key=lambda path: path.stat().st_size):
    text = path.read_text()
    start = time.perf_counter()
    yaml = YAML()
    data = yaml.load(text)
    data["trakt"]["authorization"]["access_token"] = "new"
    yaml.dump(data, io.StringIO())
    print(f"{path.stat().st_size:>8} bytes: {time.perf_counter() - start:.3f} s")
