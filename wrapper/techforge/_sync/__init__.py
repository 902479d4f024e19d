# Generated from techforge/_async/__init__.py by scripts/unasync.py; do not edit.
"""The methods of a client: signatures and documentation. `techforge._flows` has the code."""
