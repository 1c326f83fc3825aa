"""The scripts of processes that log: a handler on the logger `shop`, and what comes of its records."""

PREAMBLE = """
import logging, os, sys, threading
import rvh_trace
from rvh_trace.logging import LoggingHandler
logger = logging.getLogger("shop")
logger.setLevel(logging.DEBUG)
logger.addHandler(LoggingHandler())
"""
ONE = PREAMBLE + "rvh_trace.init_tracing('shop'); logger.info('hello')\n"
FLUSHED = ONE + "assert rvh_trace.force_flush(), rvh_trace.stats()\n"
BALANCED = """
logs = rvh_trace.stats()["logs"]
assert logs["created"] == logs["exported"] + logs["pending"] + sum(logs["dropped"].values()), logs
"""
