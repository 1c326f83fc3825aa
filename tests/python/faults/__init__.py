"""What a collector can do wrong, on real sockets, and what becomes of the spans: each arrives once or is counted.

- `server.FaultServer` listens, with and without TLS, and plays a list of faults, one a request; then it takes spans.
- `http1` and `grpc2` speak the two transports byte by byte, so that they can stop anywhere.
- `scenario` is the table; `child` is the application of each scenario, in a process of its own.
"""
