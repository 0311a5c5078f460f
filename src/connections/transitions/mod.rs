//! Carrying out what the rules decided, under the lock of the login.

pub mod store;
