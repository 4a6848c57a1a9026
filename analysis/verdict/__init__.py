"""What bounds each stage, what removing the cause can bring, and the stakeholder's summary."""
