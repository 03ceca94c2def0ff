"""The demonstration: real data, real servers, and a run killed half-way."""
