"""Decisions: values and pure functions. No asyncio, clock, randomness, network or log is allowed in here."""
