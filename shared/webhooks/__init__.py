"""Webhooks: the addresses that an owner gives, which of them may be called, and the deliveries to them."""
