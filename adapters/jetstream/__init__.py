"""NATS JetStream: the log, the bus, the blobs and the snapshots."""
