"""Named objects in a folder or in an S3 bucket, and the blobs that are kept as such."""
