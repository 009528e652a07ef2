//! Counts and times as the signed integers of SQLite.

/// A count for the store. One beyond 2^63 stays there.
pub(super) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A count of the store. A negative one is none of this program's.
pub(super) fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_fit_the_integers_of_the_store() {
        assert_eq!(signed(u64::MAX), i64::MAX);
        assert_eq!(signed(7), 7);
        assert_eq!((unsigned(-1), unsigned(7)), (0, 7));
    }
}
