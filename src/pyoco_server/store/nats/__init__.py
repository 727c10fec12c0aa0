"""NATS itself: the connection, messages, buckets, objects and feeds, of use to another project too."""
