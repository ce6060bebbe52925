"""The data side as processes: workers relay, the workers on the control side tells them what to do.

A worker needs nobody. When the control side is gone it goes on with what it was told last, and the next
control side finds it and takes over.
"""
