"""The rule sets of nft/examples, loaded on a gateway and used for calls."""
