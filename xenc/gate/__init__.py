"""The performance gate, a pytest plugin for any project: `pytest_plugins = ["xenc.gate"]` in its conftest.py.

    a test hands over what is to be timed -> rounds or blocks -> evidence -> verdict -> report

Evidence is either a stored baseline or another revision that is measured in the same processes.
"""

from importlib.util import find_spec

for needed in ("pytest_benchmark", "filelock", "scipy", "pydantic"):
    if find_spec(needed) is None:
        raise ImportError(f"the gate needs {needed}: pip install 'xenc[gate]'")

pytest_plugins = (f"{__name__}.plugin",)
