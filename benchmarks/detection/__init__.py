"""How well defects are found: ours, the peer and a reference, on the same split of the same pictures."""
