"""The other libraries. Each module fails to import when its library is not installed; nothing else depends on that."""
