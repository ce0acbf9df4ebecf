"""The kernel and the host's tools: each danger has one door here, and nothing here knows what a session is."""
