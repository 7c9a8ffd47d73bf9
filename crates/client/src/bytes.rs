//! Big-endian numbers in messages.

/// The big-endian `u16` at `at`; the caller has checked the length.
pub fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

/// The big-endian `u32` at `at`; the caller has checked the length.
pub fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from(u16_at(bytes, at)) << 16 | u32::from(u16_at(bytes, at + 2))
}

/// The big-endian `u64` at `at`; the caller has checked the length.
pub fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) << 32 | u64::from(u32_at(bytes, at + 4))
}

/// The big-endian 24-bit number at `at`; the caller has checked the length.
pub fn u24_at(bytes: &[u8], at: usize) -> u32 {
    u32::from(bytes[at]) << 16 | u32::from(u16_at(bytes, at + 1))
}

/// Puts `part` at `at`.
pub fn put(bytes: &mut [u8], at: usize, part: &[u8]) {
    bytes[at..at + part.len()].copy_from_slice(part);
}
