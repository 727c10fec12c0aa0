"""Looks at a store that the existing system has made, before anything of it is changed."""
