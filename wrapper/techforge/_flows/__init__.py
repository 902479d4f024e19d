"""Every loop of the package, written once as a flow. `techforge._flow` explains flows."""
