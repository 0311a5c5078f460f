//! What becomes of a token that another one took the place of.
//!
//! A token that comes from an exchange is Dapi's own word. One that is imported may be a typing error, and
//! would have cost the user's working link. So what an unproven import supersedes is kept, out of everybody's
//! reach, until the newer token has proven itself.

/// What is known of a token that moves in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verification {
    /// Nobody has tried it.
    Unproven,
    /// Dapi took it in a call.
    Proven {
        /// Dapi's `type`, if it said that the token works and the user's login does not.
        attention: Option<String>,
    },
}

/// What happens to an active connection while the tokens of its predecessors may be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PredecessorEvent {
    /// A call with its token succeeded.
    Worked,
    /// Dapi called its token dead.
    Died,
    /// It was revoked; or it is a predecessor itself, and that was revoked.
    Revoked,
    /// A newer connection of its login takes its place.
    Superseded {
        /// The newer one is not known to work.
        by_unproven: bool,
    },
}

/// What follows for the kept tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PredecessorTransition {
    /// Its own token is kept too, and those before it stay.
    Keep,
    /// The kept token becomes its connection's again, which is active as it was.
    Restore,
    /// Its kept token is destroyed, and those of the connections that it took the place of.
    Destroy,
}

/// What becomes of the token that is kept of a connection, or of those before it, when this happens to it.
#[must_use]
pub const fn predecessor_transition(event: PredecessorEvent) -> PredecessorTransition {
    match event {
        PredecessorEvent::Superseded { by_unproven: true } => PredecessorTransition::Keep,
        PredecessorEvent::Died => PredecessorTransition::Restore,
        PredecessorEvent::Worked
        | PredecessorEvent::Revoked
        | PredecessorEvent::Superseded { by_unproven: false } => PredecessorTransition::Destroy,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_predecessor_is_kept_for_an_unproven_token_and_for_no_other() {
        let superseded =
            |by_unproven| predecessor_transition(PredecessorEvent::Superseded { by_unproven });
        assert_eq!(superseded(true), PredecessorTransition::Keep);
        assert_eq!(superseded(false), PredecessorTransition::Destroy);
    }

    #[test]
    fn nothing_but_dapis_word_that_the_newer_token_is_dead_restores() {
        assert_eq!(predecessor_transition(PredecessorEvent::Died), PredecessorTransition::Restore);
        for event in [
            PredecessorEvent::Worked,
            PredecessorEvent::Revoked,
            PredecessorEvent::Superseded { by_unproven: true },
            PredecessorEvent::Superseded { by_unproven: false },
        ] {
            assert_ne!(predecessor_transition(event), PredecessorTransition::Restore, "{event:?}");
        }
    }

    #[test]
    fn a_revocation_and_a_success_leave_nothing_kept() {
        assert_eq!(
            predecessor_transition(PredecessorEvent::Revoked),
            PredecessorTransition::Destroy
        );
        assert_eq!(
            predecessor_transition(PredecessorEvent::Worked),
            PredecessorTransition::Destroy
        );
    }
}
