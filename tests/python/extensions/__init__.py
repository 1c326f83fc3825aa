"""Other extension modules in the trace: `rvh_trace_client` and the interface that it uses."""
