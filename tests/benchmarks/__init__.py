"""What this project promises about speed, measured: one module per benchmark, each with `measure()` -> a flat dict.

`python -m tests.benchmarks` lists them; `python -m tests.benchmarks NAME --json` prints one JSON object.
"""
