"""A step of training: the policy, its samples, what they are worth, and the update."""
