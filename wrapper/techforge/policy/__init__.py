"""Decisions without I/O. The caller passes the time and random numbers."""
