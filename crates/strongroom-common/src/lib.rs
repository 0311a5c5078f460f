//! What the service and its development tools have in common: the clock and secret text.
//!
//! Both pass these types to each other, so there is one of each. Nothing belongs here that one side
//! alone uses.

pub mod clock;
pub mod secret;
