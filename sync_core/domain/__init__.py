"""The words both planes share. Values are frozen, functions pure; nothing but the standard library is imported."""
