"""The methods of a client: signatures and documentation. `techforge._flows` has the code."""
