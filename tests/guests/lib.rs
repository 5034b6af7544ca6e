//! Plugins that only the test suite wants. Each is an example of this package.
