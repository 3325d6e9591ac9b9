"""A stand-in Kochava, made-up events and an embedded broker: for the demo, tests, benchmarks and rehearsals.

It imports nothing from `core`: what it knows of the contract it has read for itself, or it would repeat our mistakes.
"""
