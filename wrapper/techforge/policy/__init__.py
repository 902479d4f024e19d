"""Decisions without I/O: state in, decision out; clock and random are the caller's."""
