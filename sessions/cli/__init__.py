"""The commands: what they take and what they print. All that they do is done by sessions.lifecycle."""
