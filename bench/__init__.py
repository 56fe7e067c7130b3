"""The benchmarks: `./trivet bench NAME [--json]`.

Machines differ and are shared, so what counts are ratios, of two things measured in turn in one
run. Each module here is one benchmark with a function `run() -> Results`; what several need is
in `measure` (figures), `fakenode` (a node whose engines are fakes) and `load` (HTTP load).
"""
