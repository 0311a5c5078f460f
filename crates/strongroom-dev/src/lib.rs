//! What developing and testing against Strongroom takes, and what its production binary must not
//! contain: the sandbox that stands in for Dapi.

pub mod sandbox;
