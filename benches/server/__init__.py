"""What tracing costs a server: requests a second and latency that are left of the untraced server's.

    python -m benches.server [--quick] [--rounds N] [--seconds S] [--only NAME] [--markdown]

Run from the repository root; `make bench-server` does. uvicorn (uvloop, httptools) with a Starlette application has one
core to itself; wrk and a collector share another. It reports and never judges a build: a missed target is a line in the
table.
"""
