//! Sets whose members have names, one bit each.

/// Defines a set: a constant for each member, and its name in arguments and variables.
///
/// Parsing one name gives the set of that member alone, and collecting such sets unites them. The error of parsing is what
/// the text is instead, to be written behind it: `not 4xx or 5xx`.
macro_rules! named_set {
    (
        $(#[$documentation:meta])*
        pub struct $Set:ident($bits:ty) {
            $($(#[$member_documentation:meta])* $MEMBER:ident = $name:literal,)+
        }
    ) => {
        $(#[$documentation])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        pub struct $Set($bits);

        impl $Set {
            /// The set without members.
            pub const NONE: Self = Self(0);
            /// The names of the members.
            pub const NAMES: &[&'static str] = &[$($name),+];

            named_set!(@members $bits, 0, $($(#[$member_documentation])* $MEMBER,)+);

            /// Whether every member of `members` is in.
            #[inline]
            pub const fn has(self, members: Self) -> bool {
                self.0 & members.0 == members.0
            }

            /// Whether there is no member.
            #[inline]
            pub const fn is_empty(self) -> bool {
                self.0 == 0
            }

            /// The members of both sets.
            #[must_use]
            pub const fn union(self, other: Self) -> Self {
                Self(self.0 | other.0)
            }
        }

        impl std::str::FromStr for $Set {
            type Err = String;

            fn from_str(name: &str) -> Result<Self, String> {
                let place = Self::NAMES.iter().position(|known| known.eq_ignore_ascii_case(name));
                place.map(|place| Self(1 << place)).ok_or_else(|| {
                    format!("not {}, or none alone", Self::NAMES.join(", "))
                })
            }
        }

        impl FromIterator<$Set> for $Set {
            fn from_iter<I: IntoIterator<Item = Self>>(sets: I) -> Self {
                sets.into_iter().fold(Self::NONE, Self::union)
            }
        }
    };
    (@members $bits:ty, $place:expr, $(#[$documentation:meta])* $MEMBER:ident, $($rest:tt)*) => {
        $(#[$documentation])*
        pub const $MEMBER: Self = Self(1 << ($place));
        named_set!(@members $bits, $place + 1, $($rest)*);
    };
    (@members $bits:ty, $place:expr,) => {};
}

pub(super) use named_set;

#[cfg(test)]
#[expect(unreachable_pub, reason = "the macro makes public sets")]
mod tests {
    named_set! {
        /// Fruit.
        pub struct Fruit(u8) {
            /// Red.
            APPLE = "apple",
            /// Blue.
            PLUM = "pl.um",
        }
    }

    #[test]
    fn members_are_parsed_by_name_and_united() {
        assert_eq!("PL.um".parse(), Ok(Fruit::PLUM));
        assert_eq!(
            "pear".parse::<Fruit>(),
            Err("not apple, pl.um, or none alone".to_owned())
        );
        let both: Fruit = [Fruit::APPLE, Fruit::PLUM].into_iter().collect();
        assert!(both.has(Fruit::APPLE) && both.has(Fruit::PLUM) && both.has(both));
        assert!(!Fruit::APPLE.has(Fruit::PLUM) && !Fruit::APPLE.has(both));
        assert!(Fruit::NONE.is_empty() && !both.is_empty());
    }
}
