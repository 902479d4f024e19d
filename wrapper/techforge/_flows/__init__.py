"""Every loop of the package, written once: see `techforge._flow` for what a flow is."""
