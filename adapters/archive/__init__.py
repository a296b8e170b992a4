"""The archive: hash-chained segments and blobs in a folder or bucket."""
