"""What the control plane answers over HTTP, the same from Azure Functions and from `uds up`."""
