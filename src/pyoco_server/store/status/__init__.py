"""How NATS is doing, as it says itself: streams, consumers, copies, room."""
