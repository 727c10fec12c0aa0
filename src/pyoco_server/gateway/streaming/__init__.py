"""Answers that go on: watches, page events and logs."""
