//! Tests of the engine with a host of its own.
