//! Logical unit numbers in the eight bytes of SAM-5, 4.7

use twincell_core::ids::NcaeIndex;

/// The logical unit that the field names, if it is of a form that names one of ours: single level, peripheral
/// device addressing (bus 0) or flat space addressing.
pub fn parse(field: [u8; 8]) -> Option<NcaeIndex> {
    let [first, second, rest @ ..] = field;
    if rest != [0; 6] {
        return None;
    }
    match first >> 6 {
        0 if first == 0 => Some(NcaeIndex(second.into())),
        1 => Some(NcaeIndex(u16::from(first & 0x3f) << 8 | u16::from(second))),
        _ => None,
    }
}

/// The field that names a logical unit: peripheral device addressing as long as it suffices, which is what
/// initiators understand best.
pub fn field(lun: NcaeIndex) -> [u8; 8] {
    let [high, low] = lun.0.to_be_bytes();
    let first = if high == 0 { 0 } else { 0x40 | (high & 0x3f) };
    [first, low, 0, 0, 0, 0, 0, 0]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_luns_of_a_cell_have_a_field() {
        for n in 0..twincell_core::ids::LUNS_MAX as u16 {
            assert_eq!(parse(field(NcaeIndex(n))), Some(NcaeIndex(n)));
        }
        assert_eq!(field(NcaeIndex(255)), [0, 255, 0, 0, 0, 0, 0, 0]);
        assert_eq!(field(NcaeIndex(256)), [0x41, 0, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn other_forms_name_nothing_of_ours() {
        assert_eq!(
            parse([0xc1, 1, 0, 0, 0, 0, 0, 0]),
            None,
            "REPORT LUNS well known logical unit"
        );
        assert_eq!(parse([0x01, 0, 0, 0, 0, 0, 0, 0]), None, "bus 1");
        assert_eq!(parse([0, 0, 0, 1, 0, 0, 0, 0]), None, "second level");
        assert_eq!(parse([0x40, 7, 0, 0, 0, 0, 0, 0]), Some(NcaeIndex(7)));
    }
}
