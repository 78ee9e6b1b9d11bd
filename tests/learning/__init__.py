"""The machines that a server and a client are, learnt from outside; ``python -m tests.learning`` renews them."""
