"""Real servers under the middleware: N requests are N SERVER spans, whatever the connections carry.

`application` is what every server serves, `server` runs one in a process of its own, `connection` is the raw client,
`request` says what is sent and `traces` what has to come of it.
"""
