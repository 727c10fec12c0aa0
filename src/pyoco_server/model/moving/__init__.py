"""What a store of the existing system holds, as this system will take it."""
