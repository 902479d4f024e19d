# Generated from techforge/_async/__init__.py by scripts/unasync.py; do not edit.
"""What a client offers: signatures and documentation; the work is in `techforge._flows`."""
