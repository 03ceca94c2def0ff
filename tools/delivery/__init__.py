"""From a commit to a running release: what tools/build-*, tools/deploy, tools/smoke-test and tools/rollback do.

Building needs the locked packages of .venv; the rest needs the standard library and the vendors' command lines alone.
"""
