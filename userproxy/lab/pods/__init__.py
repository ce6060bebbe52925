"""What runs in the lab's pods, and what a pod finds in its /etc."""
