"""What tracing costs: `rvh_trace` and its peers measured side by side against doing nothing.

    python -m benches.python [--quick] [--only NAME] [--markdown] [--json FILE]

Run from the repository root; `make bench` does. It starts a collector, one process for each library (`worker`) and
measures in rounds (`measure`): every library once a round, each beside its own baseline, so that what the machine does
meanwhile befalls all of them. It reports and never judges a build: a missed target is a line in the table.
"""
