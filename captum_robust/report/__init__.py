"""Reports: one HTML file that needs no other, and asks the network for nothing."""
