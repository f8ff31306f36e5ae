//! How far a range goes and how many records of it to ask for at once, without I/O.
//!
//! etcd counts what is left of a range with every page, so few large pages are read much faster than many
//! small ones; and an answer that is larger than what is decoded is lost. So pages grow towards a size in
//! bytes, and one that was too large is asked for again by halves.

/// What an answer may have, in bytes.
pub const MOST_BYTES: usize = 64 << 20;
/// The size of a page that is aimed at: far from the most, since records differ.
const AIM: usize = 16 << 20;
/// The records of the first page, when nothing is known of their size.
const FIRST: usize = 10_000;
/// The most records of a page.
const MOST: usize = 100_000;

/// The first key after all that begin with this prefix, which ends in a slash.
#[must_use]
pub fn end_of(prefix: &str) -> Vec<u8> {
    let mut end = prefix.as_bytes().to_vec();
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    end
}

/// The size of the next page.
#[derive(Debug, Clone)]
pub struct PageSize(usize);

impl Default for PageSize {
    fn default() -> Self {
        PageSize(FIRST)
    }
}

impl PageSize {
    /// That of a first page.
    #[must_use]
    pub fn new() -> Self {
        PageSize::default()
    }

    /// How many records to ask for.
    #[must_use]
    pub fn records(&self) -> i64 {
        self.0 as i64
    }

    /// A page of so many records had so many bytes, keys and values.
    pub fn had(&mut self, records: usize, bytes: usize) {
        if records > 0 {
            let each = bytes.div_ceil(records).max(1);
            self.0 = (AIM / each).clamp(1, MOST);
        }
    }

    /// The page was too large; false when it cannot be smaller.
    #[must_use]
    pub fn was_too_large(&mut self) -> bool {
        let smaller = self.0 / 2;
        self.0 = smaller.max(1);
        smaller > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_have_the_size_that_is_aimed_at() {
        for (records, bytes, next) in [
            (10_000, 10_000 * 150, 100_000),
            (10_000, 10_000 * 1000, 16_777),
            (10, 10 << 20, 16),
            (1, 40 << 20, 1),
            (0, 0, 10_000),
        ] {
            let mut size = PageSize::new();
            size.had(records, bytes);
            assert_eq!(size.records(), next, "{records} of {bytes}");
        }
    }

    #[test]
    fn a_page_that_is_too_large_is_halved_until_it_is_one_record() {
        let mut size = PageSize::new();
        let mut halvings = 0;
        while size.was_too_large() {
            halvings += 1;
        }
        assert_eq!((size.records(), halvings), (1, 13));
    }
}
