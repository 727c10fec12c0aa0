"""Dead letters as callers see and count them."""
