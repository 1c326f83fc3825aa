"""Random asyncio programs against a model: a span is current exactly where a reader of the program would say it is."""
