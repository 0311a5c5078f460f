//! Decides what becomes of a token that another one supersedes.
//!
//! A token from an exchange comes from Dapi itself. An imported one may be mistyped, and must not cost the user a
//! working link. So the token that an unproven import supersedes is kept, where no caller can use it, until a call
//! with the newer token has succeeded.

/// What is known of a token when it is imported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verification {
    /// No call has succeeded with it.
    Unproven,
    /// Dapi accepted it in a call.
    Proven {
        /// Dapi's `type`, if it said that the token works and the user's login does not.
        attention: Option<String>,
    },
}

/// An event of a connection whose predecessors' tokens may be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PredecessorEvent {
    /// A call with its token succeeded.
    Worked,
    /// Dapi reported its token as dead.
    Died,
    /// It was revoked, as the active connection or as a predecessor.
    Revoked,
    /// A newer connection of its login superseded it.
    Superseded {
        /// No call has succeeded with the newer token.
        by_unproven: bool,
    },
}

/// What an event means for the kept tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PredecessorTransition {
    /// Its own token is kept too, and its predecessors' stay.
    Keep,
    /// The predecessor gets its token back and is active again.
    Restore,
    /// Its kept token and those of all its predecessors are destroyed.
    Destroy,
}

/// Decides what an event of a connection means for its kept token and for its predecessors'.
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
