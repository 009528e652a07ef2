//! A set of error statuses, the value of `proxy.retry.on_status`.

use std::fmt;

use super::key::{KeyDecl, Raw};
use super::tree::ConfigValue;

/// The lowest status of a set.
const MIN: u16 = 400;
/// The highest status of a set.
const MAX: u16 = 599;

/// Statuses from 400 to 599.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct StatusSet([u64; 4]);

impl StatusSet {
    /// The set of these statuses; others than 400 to 599 are left out.
    pub fn of(statuses: &[u16]) -> Self {
        let mut set = Self::default();
        for (word, bit) in statuses.iter().filter_map(|status| place(*status)) {
            set.0[word] |= 1 << bit;
        }
        set
    }

    /// Whether the set has a status.
    pub fn contains(&self, status: u16) -> bool {
        place(status).is_some_and(|(word, bit)| self.0[word] >> bit & 1 == 1)
    }
}

/// The word and the bit of a status.
fn place(status: u16) -> Option<(usize, usize)> {
    let at = usize::from(status.checked_sub(MIN).filter(|_| status <= MAX)?);
    Some((at / 64, at % 64))
}

impl fmt::Debug for StatusSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let members = (MIN..=MAX).filter(|status| self.contains(*status));
        f.debug_set().entries(members).finish()
    }
}

impl KeyDecl<'_, '_> {
    /// A list of statuses from 400 to 599.
    pub(super) fn statuses(self, default: &[u16]) -> StatusSet {
        let kind = format!("an integer from {MIN} to {MAX}");
        let statuses = self.shown(format!("{default:?}")).resolve_raw_list(
            kind.into(),
            default.to_vec(),
            |value| matches!(value, ConfigValue::Int(_)),
            |raw| {
                let number: i128 = match raw {
                    Raw::Env(text) => text.parse().ok()?,
                    Raw::File(node) => match node.value {
                        ConfigValue::Int(number) => number,
                        _ => return None,
                    },
                };
                u16::try_from(number)
                    .ok()
                    .filter(|status| place(*status).is_some())
            },
        );
        StatusSet::of(&statuses)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_has_its_statuses_and_no_others() {
        let set = StatusSet::of(&[400, 463, 464, 503, 599, 399, 600, 0, u16::MAX]);
        let has = |status: &u16| set.contains(*status);
        let members: Vec<u16> = (0..=u16::MAX).filter(has).collect();
        assert_eq!(members, [400, 463, 464, 503, 599]);
        assert_eq!(format!("{set:?}"), "{400, 463, 464, 503, 599}");
    }
}
