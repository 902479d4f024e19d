"""What a client offers: signatures and documentation; the work is in `techforge._flows`."""
