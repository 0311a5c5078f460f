//! What needs a second person.

use super::Reader;

/// Whether what cannot be undone needs a second person, and from how many connections on a bulk revocation does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FourEyes(Option<u32>);

impl FourEyes {
    /// Nothing needs a second person.
    pub const OFF: Self = Self(None);

    /// The highest number of connections.
    const MAX: u32 = 1_000_000;

    /// Bulk revocations of more than `connections` need a second person, and everything else that four eyes cover.
    #[must_use]
    pub const fn above(connections: u32) -> Self {
        Self(Some(connections))
    }

    /// Reads the setting. 0 is no way to say off: it means every bulk revocation that matches something.
    pub fn read(reader: &mut Reader<'_>) -> Self {
        Self(reader.optional("STRONGROOM_FOUR_EYES", |text| {
            let number = text.parse().ok().filter(|number| *number <= Self::MAX);
            number.ok_or("must be a whole number from 0 to 1000000; unset, it is off")
        }))
    }

    /// Returns whether they are on.
    #[must_use]
    pub const fn is_on(self) -> bool {
        self.0.is_some()
    }

    /// Returns whether a bulk revocation of this many connections needs a second person.
    #[must_use]
    pub fn is_exceeded_by(self, matched: i64) -> bool {
        self.0.is_some_and(|most| matched > i64::from(most))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn off_is_exceeded_by_nothing_and_zero_by_one() {
        assert!(!FourEyes::OFF.is_exceeded_by(i64::MAX));
        assert!(!FourEyes::above(0).is_exceeded_by(0) && FourEyes::above(0).is_exceeded_by(1));
        assert!(!FourEyes::above(10).is_exceeded_by(10) && FourEyes::above(10).is_exceeded_by(11));
    }
}
