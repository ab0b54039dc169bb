"""Webhooks: endpoints that owners register, the addresses that may be called, and deliveries."""
