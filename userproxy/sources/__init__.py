"""Where Services and endpoints come from: each source produces whole Snapshots, and the latest wins."""
