//! Enums whose values have names: in JSON, in the database, in tokens and in the labels of metrics.

/// Gives an enum `ALL` and `as_str` from one list of its values and their names, and `parse` if `, parse` follows. A list
/// that leaves a value out does not compile.
macro_rules! named {
    ($type:ident { $($value:ident => $name:literal),+ $(,)? }) => {
        impl $type {
            /// Every value.
            pub const ALL: [Self; [$($name),+].len()] = [$(Self::$value),+];

            /// Returns the value's name.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$value => $name),+
                }
            }
        }
    };
    ($type:ident { $($value:ident => $name:literal),+ $(,)? }, parse) => {
        $crate::common::named::named!($type { $($value => $name),+ });

        impl $type {
            /// Returns the value with this name.
            #[must_use]
            pub fn parse(name: &str) -> Option<Self> {
                Self::ALL.into_iter().find(|value| value.as_str() == name)
            }
        }
    };
}
pub(crate) use named;
