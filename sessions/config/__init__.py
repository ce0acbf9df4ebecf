"""Configuration: files are read safely, parsed in either dialect, and become chroots with everything wrong named."""
