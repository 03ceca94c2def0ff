"""One adapter a database kind; `registry` finds them by the `type` of a connection."""
