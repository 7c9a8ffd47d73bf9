//! What is on a disk that is to become one of a cell, so that nothing is overwritten that nobody has spoken of.

use crate::disk::Medium;
use crate::memory::Pages;
use std::io;
use std::os::unix::fs::FileExt;
use twincell_core::ids::{Controller, Uuid};
use twincell_wire::layout::{LABEL_OFFSETS, PAGE_BYTES, slot_offsets};
use twincell_wire::slot::SLOT_BYTES;
use twincell_wire::{Error, label, slot};

/// How much is looked at, from the beginning and to the end: there is where all that shares out disks, or makes file systems
/// on them, says so.
const LOOKED_AT: u64 = 1 << 20;
/// The magic number of md, as it is on the disk.
const MD: &[u8] = &[0xfc, 0x4e, 0x2b, 0xa9];

/// What is known by its magic number, and where that is. A boot sector, which others begin with too, comes last.
const SIGNATURES: [(&str, u64, &[u8]); 20] = [
    ("an ext2, ext3 or ext4 file system", 0x438, &[0x53, 0xef]),
    ("an XFS file system", 0, b"XFSB"),
    ("a btrfs file system", 0x1_0040, b"_BHRfS_M"),
    ("an F2FS file system", 0x400, &[0x10, 0x20, 0xf5, 0xf2]),
    ("an NTFS file system", 3, b"NTFS    "),
    ("a FAT file system", 54, b"FAT"),
    ("a FAT file system", 82, b"FAT32"),
    ("an LVM physical volume", 0, b"LABELONE"),
    ("an LVM physical volume", 512, b"LABELONE"),
    ("an LVM physical volume", 1024, b"LABELONE"),
    ("an LVM physical volume", 1536, b"LABELONE"),
    ("a LUKS volume", 0, b"LUKS\xba\xbe"),
    ("a part of an md array", 0, MD),
    ("a part of an md array", 4096, MD),
    ("a swap space", 4086, b"SWAPSPACE2"),
    ("a swap space", 65_526, b"SWAPSPACE2"),
    ("a Ceph OSD", 0, b"bluestore block device"),
    ("a GPT partition table", 512, b"EFI PART"),
    ("a GPT partition table", 4096, b"EFI PART"),
    ("an MBR partition table", 510, &[0x55, 0xaa]),
];

/// Both ends of a disk.
struct Ends {
    bytes: u64,
    head: Pages,
    tail: Pages,
}

impl Ends {
    fn read(medium: &Medium) -> io::Result<Ends> {
        let mut ends = Ends {
            bytes: medium.bytes,
            head: Pages::new(LOOKED_AT as usize),
            tail: Pages::new(LOOKED_AT as usize + PAGE_BYTES),
        };
        medium.file.read_exact_at(ends.head.bytes_mut(), 0)?;
        let offset = ends.tail_offset();
        read_to_end(medium, ends.tail.bytes_mut(), offset)?;
        Ok(ends)
    }

    /// On a page, as direct I/O wants it.
    fn tail_offset(&self) -> u64 {
        (self.bytes - LOOKED_AT) / PAGE_BYTES as u64 * PAGE_BYTES as u64
    }

    fn is_blank(&self) -> bool {
        let zero = |pages: &Pages| pages.bytes().iter().all(|byte| *byte == 0);
        zero(&self.head) && zero(&self.tail)
    }

    /// Whether the disk's label or a slot says that it is one of `cell`. The rest of a label that is not whole says nothing.
    fn are_of(&self, cell: Uuid) -> bool {
        let labels = LABEL_OFFSETS
            .iter()
            .filter_map(|at| self.head.bytes()[*at as usize..].first_chunk());
        labels
            .into_iter()
            .any(|page| label::decode(page).is_ok_and(|l| l.cell == cell))
            || self.slots().any(|sector| slot::decode(sector, cell).is_ok())
    }

    fn slots(&self) -> impl Iterator<Item = &[u8; SLOT_BYTES]> {
        let offsets = Controller::BOTH.into_iter().flat_map(slot_offsets);
        offsets.filter_map(|at| self.head.bytes()[at as usize..].first_chunk())
    }

    /// What it is, where that is known.
    fn name(&self) -> Option<&'static str> {
        let at_head = |(_, at, magic): &&(&str, u64, &[u8])| self.head.bytes()[*at as usize..].starts_with(magic);
        let named = SIGNATURES.iter().find(at_head).map(|(name, ..)| *name);
        named.or_else(|| self.name_at_tail()).or_else(|| self.name_of_slots())
    }

    fn name_at_tail(&self) -> Option<&'static str> {
        // The last sector; md 1.0 is 8 KiB before the end, rounded down to 4 KiB, and md 0.90 in the last 64 KiB that are whole.
        let places: [(&str, u64, &[u8]); 3] = [
            ("a GPT partition table", self.bytes / 512 * 512 - 512, b"EFI PART"),
            ("a part of an md array", (self.bytes - 8192) / 4096 * 4096, MD),
            ("a part of an md array", self.bytes / 65_536 * 65_536 - 65_536, MD),
        ];
        let at_tail = |(_, at, magic): &&(&str, u64, &[u8])| {
            self.tail.bytes()[(at - self.tail_offset()) as usize..].starts_with(magic)
        };
        places.iter().find(at_tail).map(|(name, ..)| *name)
    }

    /// Votes without a label: whose they are is known only to that cell.
    fn name_of_slots(&self) -> Option<&'static str> {
        let is_slot = |sector| {
            !matches!(
                slot::decode(sector, Uuid::NIL),
                Err(Error::Blank { .. } | Error::Magic { .. })
            )
        };
        self.slots().any(is_slot).then_some("a twincell disk without its label")
    }
}

/// Reads from `offset` to the end of the disk.
fn read_to_end(medium: &Medium, bytes: &mut [u8], offset: u64) -> io::Result<()> {
    let length = (medium.bytes - offset) as usize;
    let mut done = 0;
    while done < length {
        // All that is there and more is asked for: direct I/O takes whole sectors only.
        match medium.file.read_at(&mut bytes[done..], offset + done as u64) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => done += read,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// What is on a disk; `None` if it is blank, or was begun to be made one of `cell` before, by a run that was interrupted.
pub(crate) fn content_of(medium: &Medium, cell: Uuid) -> io::Result<Option<&'static str>> {
    let ends = Ends::read(medium)?;
    if ends.is_blank() || ends.are_of(cell) {
        return Ok(None);
    }
    Ok(Some(ends.name().unwrap_or("something that is not known")))
}

/// Removes what [`content_of`] finds. What is left of it at the end of a disk could else be taken for what the disk is, and be
/// brought back: the second table of a GPT, a part of an md array.
pub(crate) fn wipe(medium: &Medium) -> io::Result<()> {
    let ends = Ends::read(medium)?;
    // A file may end with a part of a sector, which direct I/O cannot write.
    let sector = u64::from(medium.sector_bytes);
    let tail = (medium.bytes / sector * sector - ends.tail_offset()) as usize;
    let zeroes = Pages::new(PAGE_BYTES);
    for (offset, bytes) in [(0, ends.head.bytes()), (ends.tail_offset(), &ends.tail.bytes()[..tail])] {
        for (at, page) in (offset..).step_by(PAGE_BYTES).zip(bytes.chunks(PAGE_BYTES)) {
            if page.iter().any(|byte| *byte != 0) {
                medium.file.write_all_at(&zeroes.bytes()[..page.len()], at)?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TempDir;
    use std::fs::File;

    const BYTES: u64 = (64 << 20) + 3 * 512;

    fn content(parts: &[(u64, &[u8])]) -> Option<&'static str> {
        let dir = TempDir::on_disk("content");
        let file = File::create(dir.path("disk")).expect("a file");
        file.set_len(BYTES).expect("a size");
        for (at, bytes) in parts {
            file.write_all_at(bytes, *at).expect("written");
        }
        content_of(&Medium::open(&dir.path("disk")).expect("a disk"), Uuid(7)).expect("its content")
    }

    #[test]
    fn what_is_known_is_named() {
        assert_eq!(content(&[]), None);
        for (name, at, magic) in SIGNATURES {
            assert_eq!(content(&[(at, magic)]), Some(name));
        }
        // A partition table of either kind has a boot sector, and the second of a GPT stays where only the first is wiped.
        let boot: (u64, &[u8]) = (510, &[0x55, 0xaa]);
        assert_eq!(content(&[boot, (512, b"EFI PART")]), Some("a GPT partition table"));
        assert_eq!(content(&[boot, (82, b"FAT32   ")]), Some("a FAT file system"));
        assert_eq!(content(&[(BYTES - 512, b"EFI PART")]), Some("a GPT partition table"));
        assert_eq!(content(&[((64 << 20) - 8192, MD)]), Some("a part of an md array"));
        assert_eq!(content(&[((64 << 20) - 65_536, MD)]), Some("a part of an md array"));
    }

    #[test]
    fn nothing_is_left_of_what_is_wiped() {
        let dir = TempDir::on_disk("content");
        let file = File::create(dir.path("disk")).expect("a file");
        file.set_len(BYTES).expect("a size");
        let outside = [LOOKED_AT, BYTES / 4096 * 4096 - LOOKED_AT - 1];
        for at in [0, 0x438, LOOKED_AT - 1, BYTES - LOOKED_AT, BYTES - 1]
            .into_iter()
            .chain(outside)
        {
            file.write_all_at(b"x", at).expect("written");
        }
        let medium = Medium::open(&dir.path("disk")).expect("a disk");
        wipe(&medium).expect("wiped");
        assert_eq!(content_of(&medium, Uuid(7)).expect("its content"), None);
        for at in outside {
            let mut byte = [0];
            file_at(&dir, at, &mut byte);
            assert_eq!(byte, *b"x", "{at}");
        }
    }

    fn file_at(dir: &TempDir, at: u64, bytes: &mut [u8]) {
        let file = File::open(dir.path("disk")).expect("a file");
        file.read_exact_at(bytes, at).expect("read");
    }

    #[test]
    fn one_byte_is_something() {
        let unknown = Some("something that is not known");
        for at in [0, LOOKED_AT - 1, BYTES - LOOKED_AT, BYTES - 1] {
            assert_eq!(content(&[(at, b"x")]), unknown, "{at}");
        }
    }
}
