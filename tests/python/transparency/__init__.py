"""Whether an application, its server and its client can tell that `RvhTraceMiddleware` is there. They must not.

An example is a request, an application and a server, all drawn by hypothesis. It is run without the middleware and then
with it, sampled, not sampled and with tracing off, with one of the sets of options in `comparison.OPTIONS`. Everything
that the application or the server can see is an event (`observation`), and the events of all the runs must be equal. In
the same runs every HTTP request and every websocket that is sampled must make exactly one SERVER span.

`RVH_TRACE_EXAMPLES` is how many examples are run in total, 20,000 if it is not set; `make soak` runs a million. They
are drawn in rounds, each from a seed of its own, so every run of the suite draws the same ones and a round that fails
can be repeated by itself: `pytest "tests/python/transparency/test_scripts.py::test_http[round 7]"`.
"""
