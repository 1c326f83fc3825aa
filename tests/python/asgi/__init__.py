"""What `RvhTraceMiddleware` makes of requests, one theme a file; driven by hand, by frameworks where they are the point."""
