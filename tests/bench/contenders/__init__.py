"""What the consumer is compared with, each a process of its own; `common.py` says what they share."""
