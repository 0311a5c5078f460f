//! What a newcomer needs beside the service itself: a PostgreSQL of their own.
//!
//! Knows: base.

pub mod postgres;
