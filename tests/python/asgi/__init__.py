"""What `RvhTraceMiddleware` makes of requests, one theme a file; driven by hand, and by frameworks too."""
