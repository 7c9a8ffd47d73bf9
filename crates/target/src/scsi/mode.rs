//! Mode parameters: MODE SENSE and MODE SELECT (SPC-4, 6.9 to 6.12 and 7.5; SBC-3, 6.5)
//!
//! Nothing can be changed. MODE SELECT accepts a parameter list that changes nothing, as initiators send it.

use super::cdb::ModeSense;
use super::sense::Sense;
use twincell_core::ids::BLOCK_BYTES;

/// Device-specific parameter: DPO and FUA are supported.
const DPOFUA: u8 = 0x10;
const ALL_PAGES: u8 = 0x3f;
const ALL_SUBPAGES: u8 = 0xff;
const CHANGEABLE: u8 = 1;
const SAVED: u8 = 3;

/// Caching: write cache enabled (WCE).
const CACHING: [u8; 20] = {
    let mut page = [0; 20];
    page[0] = 0x08;
    page[1] = 18;
    page[2] = 0x04;
    page
};

/// Control: a task set for each I_T nexus (TST 001b), no log pages to save (GLTSD), unrestricted reordering.
const CONTROL: [u8; 12] = [0x0a, 10, 0x22, 0x10, 0, 0, 0, 0, 0, 0, 0, 0];

/// Informational exceptions control: none are reported (DEXCPT).
const INFORMATIONAL_EXCEPTIONS: [u8; 12] = [0x1c, 10, 0x08, 0, 0, 0, 0, 0, 0, 0, 0, 0];

const PAGES: [&[u8]; 3] = [&CACHING, &CONTROL, &INFORMATIONAL_EXCEPTIONS];

/// Appends the answer to MODE SENSE of a LUN of `blocks` blocks.
///
/// # Errors
/// INVALID FIELD IN CDB for a page that is not there; SAVING PARAMETERS NOT SUPPORTED.
pub fn sense(asked: &ModeSense, blocks: u64, out: &mut Vec<u8>) -> Result<(), Sense> {
    if asked.control == SAVED {
        return Err(Sense::SAVING_NOT_SUPPORTED);
    }
    if asked.subpage != 0 && asked.subpage != ALL_SUBPAGES {
        return Err(Sense::invalid_field_in_cdb(3));
    }
    let wanted = |page: &&&[u8]| asked.page == ALL_PAGES || page[0] == asked.page;
    if !PAGES.iter().any(|page| wanted(&page)) {
        return Err(Sense::invalid_field_in_cdb(2));
    }
    let start = out.len();
    header(asked, blocks, out);
    for page in PAGES.iter().filter(wanted) {
        out.extend_from_slice(&page[..2]);
        if asked.control == CHANGEABLE {
            out.resize(out.len() + page.len() - 2, 0);
        } else {
            out.extend_from_slice(&page[2..]);
        }
    }
    let length = out.len() - start;
    if asked.long {
        out[start..start + 2].copy_from_slice(&(length as u16 - 2).to_be_bytes());
    } else {
        out[start] = length as u8 - 1;
    }
    Ok(())
}

/// Appends the mode parameter header, its length still 0, and the block descriptor.
fn header(asked: &ModeSense, blocks: u64, out: &mut Vec<u8>) {
    let descriptor = match (asked.no_block_descriptor, asked.long_block_descriptor) {
        (true, _) => Vec::new(),
        (false, false) => short_block_descriptor(blocks).to_vec(),
        (false, true) => long_block_descriptor(blocks).to_vec(),
    };
    let length = descriptor.len() as u8;
    if asked.long {
        let is_long = u8::from(length == 16);
        out.extend_from_slice(&[0, 0, 0, DPOFUA, is_long, 0, 0, length]);
    } else {
        out.extend_from_slice(&[0, 0, DPOFUA, length]);
    }
    out.extend_from_slice(&descriptor);
}

fn short_block_descriptor(blocks: u64) -> [u8; 8] {
    let mut descriptor = [0; 8];
    let blocks = u32::try_from(blocks).unwrap_or(u32::MAX);
    descriptor[..4].copy_from_slice(&blocks.to_be_bytes());
    descriptor[4..].copy_from_slice(&(BLOCK_BYTES as u32).to_be_bytes());
    descriptor
}

fn long_block_descriptor(blocks: u64) -> [u8; 16] {
    let mut descriptor = [0; 16];
    descriptor[..8].copy_from_slice(&blocks.to_be_bytes());
    descriptor[12..].copy_from_slice(&(BLOCK_BYTES as u32).to_be_bytes());
    descriptor
}

/// Checks a MODE SELECT parameter list (in the long form or the short one) for a LUN of `blocks` blocks.
///
/// # Errors
/// PARAMETER LIST LENGTH ERROR where it is cut short; INVALID FIELD IN PARAMETER LIST where it would change anything.
pub fn select(list: &[u8], long: bool, blocks: u64) -> Result<(), Sense> {
    if list.is_empty() {
        return Ok(());
    }
    let header_bytes = if long { 8 } else { 4 };
    let header = list.get(..header_bytes).ok_or(Sense::PARAMETER_LIST_LENGTH)?;
    let (long_descriptor, descriptor_bytes) = if long {
        (
            header[4] & 1 != 0,
            usize::from(u16::from_be_bytes([header[6], header[7]])),
        )
    } else {
        (false, usize::from(header[3]))
    };
    let pages_at = header_bytes + descriptor_bytes;
    let descriptor = list.get(header_bytes..pages_at).ok_or(Sense::PARAMETER_LIST_LENGTH)?;
    if !keeps_the_blocks(descriptor, long_descriptor, blocks) {
        return Err(Sense::invalid_field_in_parameter_list(header_bytes as u16));
    }
    select_pages(list, pages_at)
}

/// Whether a block descriptor says what is so already; no blocks mean "as they are" (SPC-4, 7.5.5).
fn keeps_the_blocks(descriptor: &[u8], long: bool, blocks: u64) -> bool {
    match (descriptor.len(), long) {
        (0, _) => true,
        (8, false) => {
            let now = short_block_descriptor(blocks);
            descriptor[4..] == now[4..] && (descriptor[..4] == now[..4] || descriptor[..4] == [0; 4])
        }
        (16, true) => {
            let now = long_block_descriptor(blocks);
            descriptor[8..] == now[8..] && (descriptor[..8] == now[..8] || descriptor[..8] == [0; 8])
        }
        _ => false,
    }
}

fn select_pages(list: &[u8], mut at: usize) -> Result<(), Sense> {
    while at < list.len() {
        let rest = &list[at..];
        let wrong = |byte: usize| Sense::invalid_field_in_parameter_list((at + byte) as u16);
        let page = PAGES.iter().find(|page| page[0] == rest[0]).ok_or(wrong(0))?;
        if rest.len() < 2 {
            return Err(Sense::PARAMETER_LIST_LENGTH);
        }
        if rest[1] != page[1] {
            return Err(wrong(1));
        }
        if rest.len() < page.len() {
            return Err(Sense::PARAMETER_LIST_LENGTH);
        }
        if let Some(byte) = (2..page.len()).find(|byte| rest[*byte] != page[*byte]) {
            return Err(wrong(byte));
        }
        at += page.len();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(page: u8, control: u8) -> ModeSense {
        ModeSense {
            long: false,
            no_block_descriptor: false,
            long_block_descriptor: false,
            control,
            page,
            subpage: 0,
            allocation: 255,
        }
    }

    fn sensed(asked: &ModeSense, blocks: u64) -> Vec<u8> {
        let mut out = Vec::new();
        sense(asked, blocks, &mut out).expect("a page that is there");
        out
    }

    #[test]
    fn caching_page_with_short_descriptor() {
        let mut expected = vec![31, 0, 0x10, 8, 0, 0, 0x10, 0, 0, 0, 2, 0, 0x08, 18, 0x04];
        expected.resize(32, 0);
        assert_eq!(sensed(&asked(0x08, 0), 0x1000), expected);
    }

    #[test]
    fn all_pages_in_the_long_form() {
        let long = ModeSense {
            long: true,
            long_block_descriptor: true,
            ..asked(ALL_PAGES, 0)
        };
        let data = sensed(&long, 1 << 40);
        assert_eq!(data.len(), 8 + 16 + 20 + 12 + 12);
        assert_eq!(data[..8], [0, 66, 0, 0x10, 1, 0, 0, 16]);
        assert_eq!(data[8..24], [0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0]);
        assert_eq!([data[24], data[44], data[56]], [0x08, 0x0a, 0x1c]);
    }

    #[test]
    fn nothing_is_changeable_or_saved() {
        let data = sensed(&asked(ALL_PAGES, CHANGEABLE), 8);
        assert_eq!(data[12..14], [0x08, 18]);
        assert_eq!(data[14..32], [0; 18]);
        let mut out = Vec::new();
        assert_eq!(
            sense(&asked(0x08, SAVED), 8, &mut out),
            Err(Sense::SAVING_NOT_SUPPORTED)
        );
        assert_eq!(sense(&asked(0x02, 0), 8, &mut out), Err(Sense::invalid_field_in_cdb(2)));
    }

    #[test]
    fn what_was_sensed_can_be_selected_and_nothing_else() {
        let mut list = sensed(&asked(ALL_PAGES, 0), 0x1000);
        list[0] = 0;
        assert_eq!(select(&list, false, 0x1000), Ok(()));
        assert_eq!(
            select(&list, false, 0x2000),
            Err(Sense::invalid_field_in_parameter_list(4))
        );
        assert_eq!(
            select(&list[..list.len() - 1], false, 0x1000),
            Err(Sense::PARAMETER_LIST_LENGTH)
        );
        list[14] ^= 0x04; // WCE
        assert_eq!(
            select(&list, false, 0x1000),
            Err(Sense::invalid_field_in_parameter_list(14))
        );
        assert_eq!(select(&[0, 0, 0], false, 8), Err(Sense::PARAMETER_LIST_LENGTH));
        assert_eq!(select(&[], false, 8), Ok(()));
    }
}
