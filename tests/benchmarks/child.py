"""The child's side: call one function of this package, and print what it returns as JSON on the last line.

It runs in the environments of peers too, so it needs nothing that is not in the standard library.
"""

from __future__ import annotations

import importlib
import json
import os
import sys

if __name__ == "__main__":
    module, _, name = sys.argv[1].rpartition(".")
    function = getattr(importlib.import_module(f"tests.benchmarks.{module}"), name)
    result = function(**json.loads(sys.argv[2]))
    print("\n" + json.dumps(result))
    sys.stdout.flush()
    os._exit(0)  # some libraries leave threads behind that nobody ends
