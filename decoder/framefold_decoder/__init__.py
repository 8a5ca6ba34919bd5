"""The decoder: stores snapshots safely, reconstructs their frames and serves both over REST."""
