//! Little-endian fields, packed one after the other.

use crate::error::{Error, Result};

/// Where fields are written to. Integers are little endian.
pub(crate) trait Sink {
    /// Appends bytes as they are.
    fn put(&mut self, bytes: &[u8]);

    fn u8(&mut self, x: u8) {
        self.put(&[x]);
    }

    fn u16(&mut self, x: u16) {
        self.put(&x.to_le_bytes());
    }

    fn u32(&mut self, x: u32) {
        self.put(&x.to_le_bytes());
    }

    fn u64(&mut self, x: u64) {
        self.put(&x.to_le_bytes());
    }

    fn u128(&mut self, x: u128) {
        self.put(&x.to_le_bytes());
    }

    /// Reserved bytes.
    fn zeroes<const N: usize>(&mut self) {
        self.put(&[0; N]);
    }
}

impl Sink for Vec<u8> {
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

/// Counts bytes instead of keeping them.
pub(crate) struct Count(pub usize);

impl Sink for Count {
    fn put(&mut self, bytes: &[u8]) {
        self.0 += bytes.len();
    }
}

/// Reads fields, and never past the end.
#[derive(Clone, Copy)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
    what: &'static str,
}

impl<'a> Reader<'a> {
    /// Reads `bytes`; errors call them `what`.
    pub fn new(bytes: &'a [u8], what: &'static str) -> Self {
        Reader { rest: bytes, what }
    }

    /// The next `n` bytes.
    pub fn take(&mut self, n: usize) -> Result<&'a [u8]> {
        let (head, rest) = self.rest.split_at_checked(n).ok_or(Error::Short { what: self.what })?;
        self.rest = rest;
        Ok(head)
    }

    /// The next `N` bytes.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (head, rest) = self.rest.split_first_chunk().ok_or(Error::Short { what: self.what })?;
        self.rest = rest;
        Ok(*head)
    }

    pub fn u8(&mut self) -> Result<u8> {
        self.array::<1>().map(|[x]| x)
    }

    pub fn u16(&mut self) -> Result<u16> {
        self.array().map(u16::from_le_bytes)
    }

    pub fn u32(&mut self) -> Result<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub fn u64(&mut self) -> Result<u64> {
        self.array().map(u64::from_le_bytes)
    }

    pub fn u128(&mut self) -> Result<u128> {
        self.array().map(u128::from_le_bytes)
    }

    /// Reserved bytes. Whoever gives them a meaning also sets a feature bit, so here they are zero.
    pub fn zeroes(&mut self, n: usize) -> Result<()> {
        match self.take(n)?.iter().find(|b| **b != 0) {
            None => Ok(()),
            Some(b) => Err(Error::Value {
                field: "a reserved byte",
                value: u64::from(*b),
            }),
        }
    }

    /// How many bytes are left.
    pub fn left(&self) -> usize {
        self.rest.len()
    }

    /// Nothing may be left.
    pub fn end(self) -> Result<()> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(Error::Trailing { what: self.what })
        }
    }
}
