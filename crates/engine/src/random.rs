//! Identities that are unique in the world.

use twincell_core::ids::Uuid;

/// A fresh random identity (RFC 9562, version 4).
pub fn random_uuid() -> Uuid {
    let mut bytes = [0u8; 16];
    let mut filled = 0;
    while filled < bytes.len() {
        let rest = &mut bytes[filled..];
        // SAFETY: the pointer and length are those of `rest`. It is needed because std has no random bytes.
        let n = unsafe { libc::getrandom(rest.as_mut_ptr().cast(), rest.len(), 0) };
        // Only a signal can interrupt it.
        filled += usize::try_from(n).unwrap_or(0);
    }
    let random = u128::from_be_bytes(bytes);
    let version = random & !(0xf << 76) | 0x4 << 76;
    Uuid(version & !(0x3 << 62) | 0x2 << 62)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_of_version_4_and_never_the_same() {
        let (a, b) = (random_uuid(), random_uuid());
        assert_ne!(a, b);
        for uuid in [a, b] {
            let text = uuid.to_string();
            assert_eq!(&text[14..15], "4", "{text}");
            assert!("89ab".contains(&text[19..20]), "{text}");
        }
    }
}
