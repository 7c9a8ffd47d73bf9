//! A list of bounded length that lives in place.
//!
//! The I/O path allocates nothing (DESIGN section 1, rule 1), yet messages and scatter/gather lists vary in
//! length. All of them have a small bound, so they are arrays with a length.

use std::hash::{Hash, Hasher};
use std::ops::Deref;

/// Up to `N` items of a plain type, stored in place.
#[derive(Clone, Copy)]
pub struct List<T, const N: usize> {
    len: u16,
    items: [T; N],
}

impl<T: Copy + Default, const N: usize> List<T, N> {
    /// An empty list.
    pub fn new() -> Self {
        List {
            len: 0,
            items: [T::default(); N],
        }
    }

    /// The list that holds `items`. Panics if there are more than `N`.
    pub fn from_slice(items: &[T]) -> Self {
        let mut list = Self::new();
        for item in items {
            list.push(*item);
        }
        list
    }

    /// How many items fit at most.
    pub const fn capacity() -> usize {
        N
    }

    /// Appends `item`. Panics if the list is full: the bound is the caller's to keep.
    pub fn push(&mut self, item: T) {
        assert!((self.len as usize) < N, "a list of {N} is full");
        self.items[self.len as usize] = item;
        self.len += 1;
    }

    /// Appends `item`, or gives it back if the list is full.
    pub fn try_push(&mut self, item: T) -> Result<(), T> {
        if self.is_full() {
            return Err(item);
        }
        self.push(item);
        Ok(())
    }

    /// Whether nothing more fits.
    pub fn is_full(&self) -> bool {
        self.len as usize == N
    }

    /// Empties the list.
    pub fn clear(&mut self) {
        self.len = 0;
    }

    /// The items, to be changed.
    pub fn as_mut_slice(&mut self) -> &mut [T] {
        &mut self.items[..self.len as usize]
    }
}

impl<T, const N: usize> Deref for List<T, N> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.items[..self.len as usize]
    }
}

impl<'a, T, const N: usize> IntoIterator for &'a List<T, N> {
    type Item = &'a T;
    type IntoIter = std::slice::Iter<'a, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl<T: Copy + Default, const N: usize> Default for List<T, N> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: PartialEq, const N: usize> PartialEq for List<T, N> {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl<T: Eq, const N: usize> Eq for List<T, N> {}

impl<T: Hash, const N: usize> Hash for List<T, N> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (**self).hash(state);
    }
}

impl<T: std::fmt::Debug, const N: usize> std::fmt::Debug for List<T, N> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl<T: Copy + Default, const N: usize> FromIterator<T> for List<T, N> {
    fn from_iter<I: IntoIterator<Item = T>>(items: I) -> Self {
        let mut list = Self::new();
        for item in items {
            list.push(item);
        }
        list
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equality_and_hash_see_only_what_is_in_the_list() {
        let mut a: List<u8, 4> = List::from_slice(&[1, 2, 3]);
        a.clear();
        a.push(1);
        let b: List<u8, 4> = List::from_slice(&[1]);
        assert_eq!(a, b);
    }

    #[test]
    #[should_panic(expected = "full")]
    fn one_too_many_is_our_own_bug() {
        List::<u8, 1>::from_slice(&[1, 2]);
    }
}
