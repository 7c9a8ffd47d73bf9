//! Making the disks of a new cell.

use crate::content::{content_of, wipe};
use crate::disk::{self, Identity, Medium, identity_of};
use crate::error::CreateError;
use crate::memory::Pages;
use crate::random::random_uuid;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use twincell_core::cell::record::{Record, Slot};
use twincell_core::ids::{BLOCK_BYTES, Controller, DiskIndex, Noid, ProcessId, QUORUM_MAX, RssIndex, Uuid};
use twincell_core::layout::metadata::{Disk, DiskState, Metadata, Name};
use twincell_core::list::List;
use twincell_wire::label::{self, Label};
use twincell_wire::layout::{LABEL_OFFSETS, METADATA_OFFSETS, PAGE_BYTES, psegs_for, slot_offsets};
use twincell_wire::metadata::{self, DISKS_MAX};
use twincell_wire::slot;

/// The smallest disk, in bytes.
pub const DISK_BYTES_MIN: u64 = 64 << 20;
/// Most disks of a redundant store set [0037].
const RSS_DISKS_MAX: usize = 11;

/// A disk to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewDisk {
    /// A block device, or a file.
    pub path: PathBuf,
    /// The size in bytes of a file to make; `None` where it is there already and is used whole.
    pub size_bytes: Option<u64>,
}

/// Makes `disks` the disks of a new cell, in this order: labels, empty slots, first metadata. The labels come last,
/// so that a disk that was made in part is no disk of a cell. What an interrupted run has begun for the same `cell` is done
/// again. A disk with anything else on it is taken only if the caller says `overwrite`.
///
/// # Errors
/// See [`CreateError`]. A disk that carries the label of another cell is never touched, and files that were made are removed.
pub fn create_disks(cell: Uuid, cell_name: &str, disks: &[NewDisk], overwrite: bool) -> Result<(), CreateError> {
    if disks.is_empty() || disks.len() > DISKS_MAX {
        return Err(CreateError::Count {
            count: disks.len(),
            max: DISKS_MAX,
        });
    }
    let name = Name::new(cell_name).ok_or_else(|| CreateError::Name { name: cell_name.into() })?;
    let mut made = Files::default();
    let media = open_media(cell, disks, &mut made)?;
    if !overwrite {
        check_blank(cell, media.iter().zip(disks))?;
    }
    let labels = labels(cell, name, &media);
    for (medium, label) in media.iter().zip(&labels) {
        write_contents(medium, label, &labels).map_err(|e| medium.failed("cannot be written", e))?;
    }
    for (medium, label) in media.iter().zip(&labels) {
        write_label(medium, label).map_err(|e| medium.failed("its label cannot be written", e))?;
    }
    made.keep();
    Ok(())
}

/// An empty disk that is labelled to take the place of one that is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replacement {
    /// Its identity.
    pub uuid: Uuid,
    /// How many PSEGs it has.
    pub psegs: u32,
}

/// Makes the disk at `path` fit to take the place `index` in the cell `cell`, whose other disks are at `others`: a label, and
/// nothing that could be taken for a slot or for metadata. One that was made so before, and is not in use yet, is found again.
///
/// # Errors
/// See [`CreateError`]. A disk that carries any other label is never touched. Whatever else is on it is lost.
pub fn label_replacement(
    cell: Uuid,
    index: DiskIndex,
    place: (RssIndex, u8),
    path: &Path,
    others: &[PathBuf],
) -> Result<Replacement, CreateError> {
    let template = others.iter().find_map(|other| {
        let labels = disk::read_labels(&Medium::open(other).ok()?.file).ok()?;
        labels.into_iter().flatten().find(|label| label.cell == cell)
    });
    let template = template.ok_or(CreateError::NoOther)?;
    let candidate = Candidate::open(path)?;
    let file = &candidate.medium.file;
    let made = disk::read_labels(file).map_err(|e| candidate.failed("cannot be read", e))?;
    if let [Ok(label), Ok(_)] = &made
        && label.cell == cell
        && label.index == index
        && is_empty(file).map_err(|e| candidate.failed("cannot be read", e))?
    {
        let (uuid, psegs) = (label.disk, label.psegs);
        return Ok(Replacement { uuid, psegs });
    }
    check_labels(path, made, None)?;
    let label = Label {
        disk: random_uuid(),
        index,
        rss: place.0,
        rss_offset: place.1,
        blocks: candidate.blocks(),
        psegs: psegs_for(candidate.blocks()),
        ..template
    };
    wipe(&candidate.medium).map_err(|e| candidate.failed("cannot be written", e))?;
    let empty = slot_offsets(Controller::A)
        .into_iter()
        .chain(slot_offsets(Controller::B));
    for offset in empty.chain(METADATA_OFFSETS) {
        write_pages(&candidate, offset, &[]).map_err(|e| candidate.failed("cannot be written", e))?;
    }
    let synced = candidate.medium.file.sync_data();
    synced.map_err(|e| candidate.failed("cannot be written", e))?;
    write_label(&candidate, &label).map_err(|e| candidate.failed("its label cannot be written", e))?;
    let (uuid, psegs) = (label.disk, label.psegs);
    Ok(Replacement { uuid, psegs })
}

/// Whether no controller has written there: no votes of an earlier life, which must not count again (R1), and no metadata.
fn is_empty(file: &File) -> io::Result<bool> {
    let slots = Controller::BOTH.into_iter().flat_map(slot_offsets);
    let mut page = Pages::new(PAGE_BYTES);
    for offset in slots.chain(METADATA_OFFSETS) {
        file.read_exact_at(page.bytes_mut(), offset)?;
        if page.bytes().iter().any(|byte| *byte != 0) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// A disk that is fit to become one of a cell.
struct Candidate {
    path: PathBuf,
    medium: Medium,
}

impl Candidate {
    /// Opens what is at `path`, which nobody else may have for its own, and whose size is right.
    fn open(path: &Path) -> Result<Candidate, CreateError> {
        let medium = Medium::open_alone(path).map_err(|e| match e.kind() {
            io::ErrorKind::ResourceBusy => CreateError::InUse { path: path.into() },
            _ => failed(path, "cannot be opened", e),
        })?;
        check_size(path, medium.bytes)?;
        if medium.sector_bytes as usize > BLOCK_BYTES {
            return Err(CreateError::SectorSize {
                path: path.into(),
                sector: medium.sector_bytes,
            });
        }
        let path = path.into();
        Ok(Candidate { path, medium })
    }

    fn blocks(&self) -> u64 {
        self.medium.bytes / BLOCK_BYTES as u64
    }

    fn failed(&self, what: &'static str, source: io::Error) -> CreateError {
        failed(&self.path, what, source)
    }
}

fn failed(path: &Path, what: &'static str, source: io::Error) -> CreateError {
    CreateError::Io {
        path: path.into(),
        what,
        source,
    }
}

/// Files that were made, and go again unless all is well.
#[derive(Default)]
struct Files(Vec<PathBuf>);

impl Files {
    fn make(&mut self, path: &Path, bytes: u64) -> io::Result<()> {
        let file = OpenOptions::new().write(true).create_new(true).open(path)?;
        self.0.push(path.into());
        file.set_len(bytes)
    }

    fn keep(&mut self) {
        self.0.clear();
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        for path in &self.0 {
            let _ = fs::remove_file(path);
        }
    }
}

fn open_media(cell: Uuid, disks: &[NewDisk], made: &mut Files) -> Result<Vec<Candidate>, CreateError> {
    let mut media: Vec<Candidate> = Vec::new();
    for NewDisk { path, size_bytes } in disks {
        if let Some(bytes) = *size_bytes {
            check_size(path, bytes)?;
            made.make(path, bytes).map_err(|e| failed(path, "cannot be made", e))?;
        }
        // Before it is opened: the same device would be in use by this process.
        let seen = fs::metadata(path).map_err(|e| failed(path, "cannot be opened", e))?;
        check_other(path, identity_of(&seen), &media)?;
        let candidate = Candidate::open(path)?;
        let labels = disk::read_labels(&candidate.medium.file).map_err(|e| candidate.failed("cannot be read", e))?;
        check_labels(path, labels, Some(cell))?;
        media.push(candidate);
    }
    Ok(media)
}

fn check_size(path: &Path, bytes: u64) -> Result<(), CreateError> {
    if bytes < DISK_BYTES_MIN {
        return Err(CreateError::TooSmall {
            path: path.into(),
            bytes,
            min: DISK_BYTES_MIN,
        });
    }
    Ok(())
}

/// Whoever carries a label, or something like one, belongs to somebody; but not if it says that it is one of `begun`, a cell
/// that is only being made.
fn check_labels(path: &Path, copies: disk::Labels, begun: Option<Uuid>) -> Result<(), CreateError> {
    use twincell_wire::Error::{Blank, Magic};
    for copy in copies {
        let label = match copy {
            Ok(label) if Some(label.cell) == begun => continue,
            Ok(label) => format!(
                "disk {} of cell {} ({})",
                label.index,
                label.cell_name.as_str(),
                label.cell
            ),
            Err(Blank { .. } | Magic { .. }) => continue,
            Err(e) => e.to_string(),
        };
        return Err(CreateError::Labelled {
            path: path.into(),
            label,
        });
    }
    Ok(())
}

/// Whether there is nothing to lose on the disks that were not made just now. All that have something are named.
fn check_blank<'a>(cell: Uuid, disks: impl Iterator<Item = (&'a Candidate, &'a NewDisk)>) -> Result<(), CreateError> {
    let mut found = Vec::new();
    for (candidate, _) in disks.filter(|(_, new)| new.size_bytes.is_none()) {
        let content = content_of(&candidate.medium, cell).map_err(|e| candidate.failed("cannot be read", e))?;
        found.extend(content.map(|what| (candidate.path.clone(), what)));
    }
    if found.is_empty() {
        return Ok(());
    }
    Err(CreateError::NotBlank { disks: found })
}

fn check_other(path: &Path, identity: Identity, media: &[Candidate]) -> Result<(), CreateError> {
    match media.iter().find(|other| other.medium.identity == identity) {
        Some(other) => Err(CreateError::Twice {
            first: other.path.clone(),
            second: path.into(),
        }),
        None => Ok(()),
    }
}

fn labels(cell: Uuid, cell_name: Name, media: &[Candidate]) -> Vec<Label> {
    let quorum = quorum(media.len());
    let psegs: Vec<u32> = media.iter().map(|m| psegs_for(m.blocks())).collect();
    let places = redundant_store_sets(&psegs);
    let label = |(i, medium): (usize, &Candidate)| Label {
        cell,
        cell_name,
        disk: random_uuid(),
        index: DiskIndex(i as u16),
        disks: media.len() as u16,
        blocks: medium.blocks(),
        quorum,
        rss: places[i].0,
        rss_offset: places[i].1,
        psegs: psegs[i],
    };
    media.iter().enumerate().map(label).collect()
}

/// Which of `disks` disks vote: 5, 3 or 1 of them, far apart.
fn quorum(disks: usize) -> List<DiskIndex, QUORUM_MAX> {
    let votes = match disks {
        0..3 => 1,
        3..5 => 3,
        _ => 5,
    };
    (0..votes).map(|n| DiskIndex((n * disks / votes) as u16)).collect()
}

/// The redundant store set of each disk, and its index there, given the PSEGs of each. Sets have 6 to 11 disks, as
/// equal as possible, and all but one an even number of them, because pairs mirror each other [0037]; fewer than 6
/// disks are one set. The two of a pair are as equal in size as possible.
fn redundant_store_sets(psegs: &[u32]) -> Vec<(RssIndex, u8)> {
    let mut order: Vec<usize> = (0..psegs.len()).collect();
    order.sort_by_key(|i| std::cmp::Reverse(psegs[*i]));
    let pairs = psegs.len() / 2;
    let sets = pairs.div_ceil(RSS_DISKS_MAX / 2).max(1);
    let mut sizes = vec![0u8; sets];
    let mut places = vec![(RssIndex(0), 0); psegs.len()];
    for (n, pair) in order.chunks(2).enumerate() {
        // The odd one goes where a pair would: to a set that has no more pairs than any other.
        let set = n % sets;
        for disk in pair {
            places[*disk] = (RssIndex(set as u16), sizes[set]);
            sizes[set] += 1;
        }
    }
    places
}

/// The first metadata of a cell: disks and no LUN.
fn first_metadata(labels: &[Label]) -> Metadata {
    let disk = |label: &Label| Disk {
        uuid: label.disk,
        psegs: label.psegs,
        rss: label.rss,
        rss_offset: label.rss_offset,
        state: DiskState::Normal,
    };
    Metadata {
        generation: 1,
        next_noid: Noid(1),
        disks: labels.iter().map(disk).collect(),
        luns: Vec::new(),
    }
}

/// What is on a disk besides its label; on disks that do not vote nothing, so that nothing old is taken for new.
fn write_contents(disk: &Candidate, label: &Label, labels: &[Label]) -> io::Result<()> {
    wipe(&disk.medium)?;
    let record = Record::first(&label.quorum);
    for controller in Controller::BOTH {
        let slot = Slot::idle(controller, ProcessId::default(), record);
        let sector = slot::encode(&slot, label.cell);
        for offset in slot_offsets(controller) {
            write_pages(disk, offset, if label.is_quorum() { &sector } else { &[] })?;
        }
    }
    let other = usize::from(record.metadata.copy ^ 1);
    write_pages(disk, METADATA_OFFSETS[other], &[])?;
    let metadata = match label.is_quorum() {
        true => metadata::encode(&first_metadata(labels), label.cell).map_err(invalid)?,
        false => Vec::new(),
    };
    write_pages(disk, METADATA_OFFSETS[usize::from(record.metadata.copy)], &metadata)?;
    disk.medium.file.sync_data()
}

fn write_label(disk: &Candidate, label: &Label) -> io::Result<()> {
    let page = label::encode(label).map_err(invalid)?;
    for offset in LABEL_OFFSETS {
        write_pages(disk, offset, &page)?;
    }
    disk.medium.file.sync_all()
}

/// Writes `bytes`, and zeroes to the end of the page; a page of zeroes for no bytes.
fn write_pages(disk: &Candidate, offset: u64, bytes: &[u8]) -> io::Result<()> {
    let mut pages = Pages::new(bytes.len().max(1).next_multiple_of(PAGE_BYTES));
    pages.bytes_mut()[..bytes.len()].copy_from_slice(bytes);
    disk.medium.file.write_all_at(pages.bytes(), offset)
}

fn invalid(e: twincell_wire::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, e)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::open_all;
    use crate::error::OpenError;
    use crate::settings::Settings;
    use crate::testing::{TempDir, settings, settings_with_disks};

    fn disk(dir: &TempDir, name: &str, size_bytes: Option<u64>) -> NewDisk {
        NewDisk {
            path: dir.path(name),
            size_bytes,
        }
    }

    fn refused(settings: &Settings) -> OpenError {
        open_all(settings).err().expect("refused")
    }

    #[test]
    fn disks_that_were_made_are_the_disks_of_the_cell() {
        let dir = TempDir::on_disk("create");
        let settings = settings_with_disks(&dir, Controller::A, 4);
        let disks = open_all(&settings).expect("the disks");
        for (i, disk) in disks.iter().enumerate() {
            let disk = disk.as_ref().expect("it is there");
            assert_eq!(disk.label.index.index(), i);
            assert_eq!(disk.bytes(), DISK_BYTES_MIN);
            assert_eq!(disk.label.quorum[..], [DiskIndex(0), DiskIndex(1), DiskIndex(2)]);
            assert_eq!(disk.label.psegs, psegs_for(DISK_BYTES_MIN / 512));
            assert_eq!(disk.label.cell_name.as_str(), "test");
        }
    }

    #[test]
    fn disks_that_are_not_as_listed_are_refused_by_name() {
        let dir = TempDir::on_disk("create");
        let good = settings_with_disks(&dir, Controller::A, 3);
        let with = |disks: &[usize]| Settings {
            disks: disks.iter().map(|i| good.disks[*i].clone()).collect(),
            ..good.clone()
        };
        assert!(matches!(
            refused(&with(&[1, 0, 2])),
            OpenError::DiskOrder {
                label: 1,
                listed: 0,
                ..
            }
        ));
        assert!(matches!(refused(&with(&[0, 0, 2])), OpenError::DiskTwice { .. }));
        assert!(matches!(
            refused(&with(&[0, 1])),
            OpenError::DiskCount { listed: 2, label: 3 }
        ));
        let link = dir.path("link");
        std::os::unix::fs::symlink(&good.disks[0], &link).expect("a link");
        let twice = Settings {
            disks: vec![good.disks[0].clone(), link, good.disks[2].clone()],
            ..good.clone()
        };
        assert!(matches!(refused(&twice), OpenError::DiskTwice { .. }));
        let other_cell = Settings {
            cell: Uuid(0xbad),
            cell_name: "other".into(),
            ..good.clone()
        };
        let text = refused(&other_cell).to_string();
        assert!(text.contains("test") && text.contains("other"), "{text}");
        fs::remove_file(&good.disks[1]).expect("removed");
        let disks = open_all(&good).expect("a majority of the disks that vote");
        assert_eq!(
            disks.iter().map(Option::is_some).collect::<Vec<_>>(),
            [true, false, true]
        );
        fs::remove_file(&good.disks[2]).expect("removed");
        let missing = refused(&good);
        assert!(
            matches!(&missing, OpenError::VotesMissing { missing, there: 1, needed: 2 } if *missing == good.disks[1..]),
            "{missing}"
        );
        fs::remove_file(&good.disks[0]).expect("removed");
        assert!(matches!(refused(&good), OpenError::DiskMissing { .. }));
    }

    #[test]
    fn a_damaged_label_is_replaced_by_its_copy_and_two_are_refused() {
        let dir = TempDir::on_disk("create");
        let settings = settings_with_disks(&dir, Controller::A, 1);
        let file = OpenOptions::new()
            .write(true)
            .open(&settings.disks[0])
            .expect("the disk");
        file.write_all_at(b"damage", LABEL_OFFSETS[0] + 100).expect("written");
        assert_eq!(open_all(&settings).expect("the copy").len(), 1);
        file.write_all_at(b"damage", LABEL_OFFSETS[1] + 100).expect("written");
        let error = refused(&settings);
        assert!(matches!(error, OpenError::LabelDamaged { .. }), "{error}");
        for offset in LABEL_OFFSETS {
            file.write_all_at(&[0; PAGE_BYTES], offset).expect("written");
        }
        assert!(matches!(refused(&settings), OpenError::NotLabelled { .. }));
    }

    /// It has votes of then, which are not to count again.
    #[test]
    fn a_disk_that_was_replaced_does_not_come_in_again_with_its_votes() {
        let dir = TempDir::on_disk("create");
        let settings = settings_with_disks(&dir, Controller::A, 4);
        let (index, place) = (DiskIndex(1), (RssIndex(0), 1));
        let old = settings.disks[1].clone();
        let others = [settings.disks[0].clone(), settings.disks[2].clone()];
        let new = dir.path("new");
        std::fs::File::create(&new)
            .and_then(|f| f.set_len(DISK_BYTES_MIN))
            .expect("a file");
        let first = label_replacement(settings.cell, index, place, &new, &others).expect("labelled");
        let again = label_replacement(settings.cell, index, place, &new, &others).expect("found again");
        assert_eq!(first, again);
        let refused = label_replacement(settings.cell, index, place, &old, &others);
        assert!(matches!(refused, Err(CreateError::Labelled { .. })), "{refused:?}");
    }

    /// Files that are blank, and the disks that they are to be.
    fn given(dir: &TempDir, names: &[&str]) -> Vec<NewDisk> {
        let file = |name: &&str| {
            let file = File::create(dir.path(name)).expect("a file");
            file.set_len(DISK_BYTES_MIN).expect("a size");
            disk(dir, name, None)
        };
        names.iter().map(file).collect()
    }

    #[test]
    fn what_is_on_disks_stays_unless_the_caller_says_otherwise() {
        let dir = TempDir::on_disk("create");
        let disks = given(&dir, &["blank", "ext4", "unknown"]);
        let write = |name, bytes: &[u8], at| {
            let file = OpenOptions::new().write(true).open(dir.path(name)).expect("a disk");
            file.write_all_at(bytes, at).expect("written");
        };
        write("ext4", &[0x53, 0xef], 0x438);
        write("unknown", b"mine", DISK_BYTES_MIN - 4);
        let before = fs::read(dir.path("ext4")).expect("a disk");
        let refused = create_disks(Uuid(2), "new", &disks, false).expect_err("refused");
        let CreateError::NotBlank { disks: found } = &refused else {
            panic!("{refused}")
        };
        assert_eq!(found.len(), 2, "{refused}");
        let text = refused.to_string();
        assert!(
            text.contains("ext4 file system") && text.contains("not known"),
            "{text}"
        );
        assert!(
            fs::read(dir.path("ext4")).expect("a disk") == before,
            "it was written to"
        );
        create_disks(Uuid(2), "new", &disks, true).expect("it was said");
        let after = fs::read(dir.path("unknown")).expect("a disk");
        assert!(!after.ends_with(b"mine"), "it is still at its end");
    }

    /// Between any two writes; but what is begun for one cell is not another's.
    #[test]
    fn a_creation_that_was_interrupted_is_done_again() {
        let (cell, name) = (Uuid(2), "new");
        for labelled in 0..=2 {
            let dir = TempDir::on_disk("create");
            let disks = given(&dir, &["0", "1"]);
            let media = open_media(cell, &disks, &mut Files::default()).expect("disks");
            let labels = labels(cell, Name::new(name).expect("a name"), &media);
            write_contents(&media[0], &labels[0], &labels).expect("written");
            for (medium, label) in media.iter().zip(&labels).take(labelled) {
                write_label(medium, label).expect("written");
            }
            let other = create_disks(Uuid(3), name, &disks, false).expect_err("refused");
            match labelled {
                0 => assert!(matches!(other, CreateError::NotBlank { .. }), "{other}"),
                _ => assert!(matches!(other, CreateError::Labelled { .. }), "{other}"),
            }
            create_disks(cell, name, &disks, false).expect("done again");
            let settings = Settings {
                cell,
                disks: disks.into_iter().map(|d| d.path).collect(),
                ..settings(&dir, Controller::A)
            };
            assert!(open_all(&settings).expect("disks").iter().all(Option::is_some));
        }
    }

    #[test]
    fn a_disk_that_was_cut_short_is_refused() {
        let dir = TempDir::on_disk("create");
        let settings = settings_with_disks(&dir, Controller::A, 1);
        let file = OpenOptions::new()
            .write(true)
            .open(&settings.disks[0])
            .expect("the disk");
        file.set_len(DISK_BYTES_MIN - 4096).expect("cut");
        assert!(matches!(
            refused(&settings),
            OpenError::DiskShort {
                label: DISK_BYTES_MIN,
                ..
            }
        ));
    }

    #[test]
    fn what_cannot_be_a_disk_is_not_made_one_and_nothing_is_left_behind() {
        let dir = TempDir::on_disk("create");
        let used = settings_with_disks(&dir, Controller::A, 1).disks[0].clone();
        let make = |disks: &[NewDisk]| create_disks(Uuid(2), "new", disks, false).expect_err("refused");
        let good = disk(&dir, "good", Some(DISK_BYTES_MIN));
        let on_used = |size_bytes| NewDisk {
            path: used.clone(),
            size_bytes,
        };

        assert!(matches!(make(&[]), CreateError::Count { count: 0, .. }));
        let small = make(&[good.clone(), disk(&dir, "small", Some(DISK_BYTES_MIN - 1))]);
        assert!(matches!(small, CreateError::TooSmall { .. }), "{small}");
        let labelled = make(&[good.clone(), on_used(None)]);
        assert!(labelled.to_string().contains("disk 0 of cell test"), "{labelled}");
        let exists = make(&[good.clone(), on_used(Some(DISK_BYTES_MIN))]);
        assert!(
            matches!(
                exists,
                CreateError::Io {
                    what: "cannot be made",
                    ..
                }
            ),
            "{exists}"
        );
        let twice = make(&[
            good.clone(),
            NewDisk {
                size_bytes: None,
                ..good.clone()
            },
        ]);
        assert!(matches!(twice, CreateError::Twice { .. }), "{twice}");
        let name = create_disks(Uuid(2), "a name", std::slice::from_ref(&good), false).expect_err("refused");
        assert!(matches!(name, CreateError::Name { .. }), "{name}");

        assert!(
            !good.path.exists() && !dir.path("small").exists(),
            "a file was left behind"
        );
        assert!(
            open_all(&Settings {
                disks: vec![used.clone()],
                ..settings(&dir, Controller::A)
            })
            .is_ok()
        );
    }

    #[test]
    fn the_quorum_set_is_odd_and_spread() {
        let votes = |disks| quorum(disks).iter().map(|d| d.0).collect::<Vec<u16>>();
        assert_eq!(votes(1), [0]);
        assert_eq!(votes(2), [0]);
        assert_eq!(votes(4), [0, 1, 2]);
        assert_eq!(votes(5), [0, 1, 2, 3, 4]);
        assert_eq!(votes(8), [0, 1, 3, 4, 6]);
        assert_eq!(votes(240), [0, 48, 96, 144, 192]);
    }

    #[test]
    fn redundant_store_sets_have_6_to_11_disks_in_pairs_of_equal_size() {
        for count in 1..=300 {
            let psegs: Vec<u32> = (0..count).map(|i| 100 + i as u32 % 3).collect();
            let places = redundant_store_sets(&psegs);
            let sets = places.iter().map(|p| p.0.index()).max().expect("a set") + 1;
            let mut odd = 0;
            for set in 0..sets {
                let mut members: Vec<(u8, u32)> = (0..count)
                    .filter(|i| places[*i].0.index() == set)
                    .map(|i| (places[i].1, psegs[i]))
                    .collect();
                members.sort_unstable();
                assert!(
                    members.iter().enumerate().all(|(i, m)| usize::from(m.0) == i),
                    "{count}: {members:?}"
                );
                assert!(
                    members.len() <= 11 && (count < 6 || members.len() >= 6),
                    "{count}: {members:?}"
                );
                odd += members.len() % 2;
            }
            assert_eq!(odd, count % 2, "{count} disks: more than one is without a pair");
            // Three sizes, in order: at most two pairs have two of them.
            let uneven = (0..count).filter(|i| {
                let partner = (places[*i].0, places[*i].1 ^ 1);
                (0..count).any(|j| places[j] == partner && psegs[j] != psegs[*i])
            });
            assert!(uneven.count() <= 4, "{count} disks");
        }
    }
}
