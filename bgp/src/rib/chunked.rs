//! A growing array in blocks: no copy when it grows, and hardly more memory than is used.
//!
//! Indices are dense small numbers that somebody else gives out; what was never set is the default.

/// Entries of a block.
const BLOCK: usize = 4096;

/// An array of any length whose entries start out as the default.
#[derive(Debug)]
pub(crate) struct Chunked<T> {
    blocks: Vec<Option<Box<[T; BLOCK]>>>,
}

impl<T> Default for Chunked<T> {
    fn default() -> Self {
        Chunked { blocks: Vec::new() }
    }
}

const fn place(index: u32) -> (usize, usize) {
    (index as usize / BLOCK, index as usize % BLOCK)
}

impl<T: Copy + Default> Chunked<T> {
    /// The entry, or the default.
    #[inline]
    pub(crate) fn get(&self, index: u32) -> T {
        let (block, offset) = place(index);
        match self.blocks.get(block) {
            Some(Some(block)) => block[offset],
            _ => T::default(),
        }
    }

    /// The entry, to be changed.
    #[inline]
    pub(crate) fn at(&mut self, index: u32) -> &mut T {
        let (block, offset) = place(index);
        if block >= self.blocks.len() {
            self.blocks.resize_with(block + 1, || None);
        }
        let block = self.blocks[block].get_or_insert_with(|| Box::new([T::default(); BLOCK]));
        &mut block[offset]
    }

    /// Every entry of every block that was ever touched, in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        self.blocks.iter().enumerate().flat_map(|(number, block)| {
            let entries = block.iter().flat_map(|block| block.iter());
            entries
                .enumerate()
                .map(move |(offset, entry)| ((number * BLOCK + offset) as u32, entry))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_never_set_is_the_default() {
        let mut array = Chunked::<u32>::default();
        assert_eq!(array.get(1_000_000), 0);
        *array.at(10_000) = 8;
        *array.at(3) = 9;
        assert_eq!((array.get(10_000), array.get(10_001)), (8, 0));
        let set: Vec<_> = array.iter().filter(|(_, entry)| **entry != 0).collect();
        assert_eq!(set, [(3, &9), (10_000, &8)]);
        // Two blocks were touched, the one between was not.
        assert_eq!(array.iter().count(), 2 * BLOCK);
    }
}
