"""App files of Dify: reading, writing, and what they are compared with."""
