"""Work: how it steps, fails, is retried and recovered."""
