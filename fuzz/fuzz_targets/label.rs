//! A disk label.
#![no_main]

use libfuzzer_sys::fuzz_target;
use twincell_core::ids::{DiskIndex, RssIndex, Uuid};
use twincell_core::layout::metadata::Name;
use twincell_core::list::List;
use twincell_wire::label::{LABEL_BYTES, Label, decode, encode};
use twincell_wire::{crc32c, layout};

fn label() -> Label {
    Label {
        cell: Uuid(1),
        cell_name: Name::new("demo").expect("it is a name"),
        disk: Uuid(2),
        index: DiskIndex(0),
        disks: 8,
        blocks: 1 << 21,
        quorum: List::from_slice(&[DiskIndex(0), DiskIndex(1), DiskIndex(2)]),
        rss: RssIndex(0),
        rss_offset: 0,
        psegs: layout::psegs_for(1 << 21),
    }
}

fuzz_target!(|bytes: &[u8]| {
    let mut page = encode(&label()).expect("it is a good label");
    page.iter_mut().zip(bytes).for_each(|(to, from)| *to ^= from);
    let crc = crc32c(&page[..LABEL_BYTES - 4]);
    page[LABEL_BYTES - 4..].copy_from_slice(&crc.to_le_bytes());
    if let Ok(label) = decode(&page) {
        assert_eq!(encode(&label), Ok(page));
    }
});
