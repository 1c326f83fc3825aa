"""Variables of the middleware that are wrong: each is said once, however many middlewares read it."""

from interpreter import run_script


def test_every_wrong_variable_is_said_once_for_all_middlewares() -> None:
    finished = run_script(
        """
        from rvh_trace import RvhTraceMiddleware

        async def app(scope, receive, send): ...

        RvhTraceMiddleware(app)
        RvhTraceMiddleware(app)
        """,
        RVH_TRACE_OPT_IN="client.prot",
        RVH_TRACE_TRUSTED_PROXIES="10.0.0.300",
    )
    assert finished.returncode == 0
    said = finished.stderr.splitlines()
    assert len(said) == 2, finished.stderr
    for name in ("RVH_TRACE_OPT_IN", "RVH_TRACE_TRUSTED_PROXIES"):
        assert sum(name in line for line in said) == 1
