"""A SIMULATED machine: it starts programs, measures what it starts, and signs genuine-format quotes with its own PKI.

It protects nothing. Its evidence passes through the same verifier as real evidence, under another trust anchor, and
every policy refuses it unless it says ``allow_simulated: true``.
"""
