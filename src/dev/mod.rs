//! What a newcomer needs beside the service itself: a PostgreSQL of their own, keys and a client
//! made for the occasion, and a demo.
//!
//! Knows: base, config, vault. The demo reaches Strongroom over HTTP, as any app would.

pub mod banner;
pub mod demo;
pub mod folder;
pub mod postgres;
pub mod variables;
