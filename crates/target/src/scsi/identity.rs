//! The names by which hosts know a LUN, a port and the target.

use twincell_core::ids::{Controller, Uuid};

/// T10 vendor identification.
pub const VENDOR: &[u8; 8] = b"TWINCELL";
/// Product identification.
pub const PRODUCT: &[u8; 16] = b"LUN             ";
/// Product revision level.
pub const REVISION: &[u8; 4] = b"0001";

/// The NAA locally assigned (type 3) designator of a LUN (SPC-4, 7.8.6.6.4): 60 bits that are made of its identity.
/// Both halves are folded together, since one of them alone has bits that are the same in every random UUID.
pub fn naa(uuid: Uuid) -> u64 {
    let folded = (uuid.0 >> 64) as u64 ^ uuid.0 as u64;
    3 << 60 | folded & (u64::MAX >> 4)
}

/// Target port group of a controller; iSCSI's target portal group tag is the same.
pub fn target_port_group(controller: Controller) -> u16 {
    controller.index() as u16 + 1
}

/// Relative target port identifier of a controller's iSCSI port.
pub fn relative_target_port(controller: Controller) -> u16 {
    controller.index() as u16 + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn naa_is_of_type_3_and_takes_both_halves() {
        let uuid = Uuid(0x0123_4567_89ab_4def_8000_0000_0000_0001);
        assert_eq!(naa(uuid), 0x3123_4567_89ab_4dee);
        assert_ne!(naa(uuid), naa(Uuid(uuid.0 + 1)));
        assert_ne!(naa(uuid), naa(Uuid(uuid.0 + (1 << 64))));
    }
}
