"""Which library an object is of, asked without importing the library."""


def package_of(data: object) -> str:
    """Return the name of the library that an object is of."""
    return type(data).__module__.partition(".")[0]
