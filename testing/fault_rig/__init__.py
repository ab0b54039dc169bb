"""What breaks the stack and what judges it afterwards; nothing here is imported by the product."""
