"""The words both planes share: frozen dataclasses and pure functions, standard library only."""
