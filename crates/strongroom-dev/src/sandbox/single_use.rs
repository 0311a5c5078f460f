//! Codes that are exchanged once and in time: Dapi's access codes and Plaid's public tokens.
//!
//! May import: bounded, settings.

use std::sync::Mutex;

use time::OffsetDateTime;

use super::bounded::locked;
use super::settings::SecondExchange;

/// Why a code is not exchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spent {
    Expired,
    Used,
}

/// Which exchange of a code returns what is issued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    First,
    /// A later one, which the rules let mint another token.
    Another,
}

/// What a code is exchanged for, once.
#[derive(Debug)]
pub(super) struct SingleUse<T> {
    expires_at: OffsetDateTime,
    /// What the first exchange returned. Locked while an exchange decides, so that of two concurrent ones one is
    /// second.
    first: Mutex<Option<T>>,
}

impl<T: Clone> SingleUse<T> {
    pub(super) fn until(expires_at: OffsetDateTime) -> Self {
        Self { expires_at, first: Mutex::new(None) }
    }

    /// Exchanges the code for what `issue` returns; a second time, for what the rules say.
    pub(super) fn exchange(
        &self,
        second: SecondExchange,
        now: OffsetDateTime,
        issue: impl FnOnce(Turn) -> T,
    ) -> Result<T, Spent> {
        if now >= self.expires_at {
            return Err(Spent::Expired);
        }
        let mut first = locked(&self.first);
        match (first.as_ref(), second) {
            (None, _) => Ok(first.insert(issue(Turn::First)).clone()),
            (Some(first), SecondExchange::SameToken) => Ok(first.clone()),
            (Some(_), SecondExchange::MintAnother) => Ok(issue(Turn::Another)),
            (Some(_), SecondExchange::Refuse) => Err(Spent::Used),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: OffsetDateTime = OffsetDateTime::UNIX_EPOCH;

    fn twice(second: SecondExchange) -> Result<Turn, Spent> {
        let code = SingleUse::until(NOW + time::Duration::SECOND);
        assert_eq!(code.exchange(second, NOW, |turn| turn), Ok(Turn::First));
        code.exchange(second, NOW, |turn| turn)
    }

    #[test]
    fn a_second_exchange_has_the_three_outcomes() {
        assert_eq!(twice(SecondExchange::Refuse), Err(Spent::Used));
        assert_eq!(twice(SecondExchange::SameToken), Ok(Turn::First));
        assert_eq!(twice(SecondExchange::MintAnother), Ok(Turn::Another));
    }

    #[test]
    fn a_code_ends_with_its_window_whatever_the_rules_say() {
        let code = SingleUse::until(NOW);
        assert_eq!(code.exchange(SecondExchange::SameToken, NOW, |turn| turn), Err(Spent::Expired));
    }
}
