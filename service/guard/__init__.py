"""Who may do what, how often, and what was done: keys, limits, the audit log. Nothing of HTTP."""
