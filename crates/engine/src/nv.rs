//! NV memory, driver *mapped* (DESIGN section 5): a file on tmpfs or hugetlbfs that survives this process, with every
//! page of it there before the first use. Byte map: docs/nv-layout.md.

use crate::error::OpenError;
use crate::private::{NotPrivate, PrivateDir};
use crate::settings::Settings;
use rustix::fs::fstatfs;
use rustix::process::geteuid;
use std::cell::Cell;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::ptr::NonNull;
use std::slice;
use std::sync::atomic::{AtomicU64, Ordering};
use twincell_core::config::Geometry;
use twincell_core::ids::{BLOCK_BYTES, BUFFER_BYTES, BufferIndex, NvAddress, Uuid};
use twincell_core::memory::Segment;
use twincell_core::nv::Image;
use twincell_wire::nv::{self, HEADER_BYTES, IDENTITY_BYTES, IDENTITY_OFFSET, NvHeader, NvLayout};
use twincell_wire::{Error as WireError, crc32c_append};

/// Bits of a seal that are checksum; above them is the mask of the blocks that it covers.
const SEAL_CRC_BITS: u32 = 32;

/// In place of what the seal of a buffer will be: it has damaged data, and gets a wrong one. No mask, and no checksum.
const DAMAGED: u64 = 1 << 40;

/// The NV memory of this controller.
pub(crate) struct NvMemory {
    map: Mapping,
    layout: NvLayout,
    /// By buffer, what its seal will be if nothing changes until then; 0 where that is not known, or `DAMAGED`. Volatile.
    known: Vec<Cell<u64>>,
    place: Place,
    /// Locked as long as this lives: no second process uses this memory.
    _file: File,
}

impl NvMemory {
    /// Opens or makes it. `boot` is the kernel's boot id: what was written under another is no image. An image of other
    /// sizes is refused: it may have what the disks lack.
    pub(crate) fn open(settings: &Settings, geometry: &Geometry, boot: Uuid) -> Result<NvMemory, OpenError> {
        let place = Place::open(&settings.nv_memory)?;
        let layout = NvLayout::of(geometry);
        let header = NvHeader {
            cell: settings.cell,
            controller: settings.controller,
            boot,
            buffers: geometry.buffers,
            ries: geometry.ries,
        };
        let file = place.take(settings)?;
        let unit = page_bytes(&file, &place.path)?;
        let is_image = has_image(&file, &place.path, &header)?;
        let map = Mapping::open(&file, &place.path, layout.bytes.next_multiple_of(unit)).inspect_err(|_| {
            // What could be had in part must not stay taken. An image stays: it may have what the disks lack, and that it
            // cannot be mapped now says nothing against it.
            if !is_image {
                let _ = place.remove();
            }
        })?;
        let memory = NvMemory {
            map,
            known: vec![Cell::new(0); layout.buffers as usize],
            layout,
            place,
            _file: file,
        };
        if nv::decode(memory.header_page()).ok() != Some(header) {
            let page = nv::encode(&header, Uuid::NIL).map_err(|e| OpenError::Settings(e.to_string()))?;
            memory.map.write(0, &page);
        }
        Ok(memory)
    }

    /// The image that is there, if there is one.
    pub(crate) fn image(&self) -> Option<Image> {
        let identity = self.header_page()[IDENTITY_OFFSET..].first_chunk::<IDENTITY_BYTES>()?;
        let uuid = nv::decode_identity(identity).ok()?;
        let words = (0..self.layout.words).map(|i| self.word(NvAddress(i)).load(Ordering::Acquire));
        Some(Image {
            uuid,
            words: words.collect(),
        })
    }

    /// Empties the image and names it `uuid`. At no instant does the old name stand before words not its own.
    pub(crate) fn new_image(&mut self, uuid: Uuid) {
        self.map.write(IDENTITY_OFFSET, &[0; IDENTITY_BYTES]);
        for i in 0..self.layout.words {
            self.word(NvAddress(i)).store(0, Ordering::Release);
        }
        for i in 0..self.layout.buffers {
            self.unseal(BufferIndex(i));
        }
        self.map.write(IDENTITY_OFFSET, &nv::encode_identity(uuid));
    }

    /// Stores one word, after all stores before it.
    pub(crate) fn store(&self, address: NvAddress, word: u64) {
        self.word(address).store(word, Ordering::Release);
    }

    /// The address of block `block` of a buffer, which has 8.
    pub(crate) fn block(&self, buffer: BufferIndex, block: usize) -> *mut u8 {
        assert!(buffer.0 < self.layout.buffers, "{buffer:?} is not in NV memory");
        assert!(block < BUFFER_BYTES / BLOCK_BYTES, "block {block} is not in a buffer");
        let offset = self.layout.buffers_offset as usize + buffer.index() * BUFFER_BYTES + block * BLOCK_BYTES;
        self.map.at(offset)
    }

    /// Notes the checksum of the blocks `mask` of a buffer.
    pub(crate) fn seal(&self, buffer: BufferIndex, mask: u8) {
        let seal = match self.known[buffer.index()].get() {
            // It would vouch for what is there now.
            DAMAGED => self.checksum(buffer, mask) ^ 1,
            known if mask_of(known) == mask => known,
            _ => self.checksum(buffer, mask),
        };
        self.seal_of(buffer).store(seal, Ordering::Release);
    }

    /// Damaged data were copied to a buffer: until its bytes change, whatever is sealed of it passes no check.
    pub(crate) fn damage(&self, buffer: BufferIndex) {
        self.known[buffer.index()].set(DAMAGED);
    }

    /// Forgets the checksum of a buffer.
    pub(crate) fn unseal(&self, buffer: BufferIndex) {
        self.known[buffer.index()].set(0);
        self.seal_of(buffer).store(0, Ordering::Release);
    }

    /// What was just written to `segment`, and nothing else in its buffer that counts, has the checksum `crc`.
    pub(crate) fn expect(&self, segment: Segment, crc: u32) {
        let seal = u64::from(mask_of_segment(segment)) << SEAL_CRC_BITS | u64::from(crc);
        self.known[segment.buffer.index()].set(seal);
    }

    /// The checksum of `segment`, if that is what was sealed.
    pub(crate) fn sealed_crc(&self, segment: Segment) -> Option<u32> {
        let seal = self.seal_of(segment.buffer).load(Ordering::Acquire);
        (mask_of(seal) == mask_of_segment(segment)).then_some(seal as u32)
    }

    /// Whether all that was sealed together with `segment` is what it was then, as far as can be told.
    pub(crate) fn is_intact(&self, segment: Segment) -> bool {
        let seal = self.seal_of(segment.buffer).load(Ordering::Acquire);
        let mask = mask_of(seal);
        mask == 0 || self.checksum(segment.buffer, mask) == seal
    }

    /// Removes it from the file system: everything is on disk.
    pub(crate) fn remove(self) -> io::Result<()> {
        self.place.remove()
    }

    /// The mask, and the CRC-32C of the blocks that it names.
    fn checksum(&self, buffer: BufferIndex, mask: u8) -> u64 {
        let mut crc = 0;
        let mut rest = mask;
        while rest != 0 {
            let first = rest.trailing_zeros();
            let count = (rest >> first).trailing_ones();
            // SAFETY: `block` gives an address inside the mapping, in a buffer of 8 blocks of which the run has no more
            // than are left. Nobody writes there meanwhile: the core names a buffer for one use at a time, and there is
            // one thread.
            let run =
                unsafe { slice::from_raw_parts(self.block(buffer, first as usize), count as usize * BLOCK_BYTES) };
            crc = crc32c_append(crc, run);
            rest &= !(((1u32 << count) - 1) << first) as u8;
        }
        u64::from(mask) << SEAL_CRC_BITS | u64::from(crc)
    }

    fn word(&self, address: NvAddress) -> &AtomicU64 {
        assert!(address.0 < self.layout.words, "{address:?} is not in NV memory");
        let at = self.map.at(self.layout.words_offset as usize + address.index() * 8);
        // SAFETY: inside the mapping, aligned because the offset of the words is that of a page, and accessed in no
        // other way than as an atomic.
        unsafe { AtomicU64::from_ptr(at.cast()) }
    }

    fn seal_of(&self, buffer: BufferIndex) -> &AtomicU64 {
        assert!(buffer.0 < self.layout.buffers, "{buffer:?} is not in NV memory");
        let at = self.map.at(self.layout.seals_offset as usize + buffer.index() * 8);
        // SAFETY: as for `word`.
        unsafe { AtomicU64::from_ptr(at.cast()) }
    }

    fn header_page(&self) -> &[u8; HEADER_BYTES] {
        // SAFETY: the mapping begins with the header and is longer; only `open` and `new_image` write there, while
        // no such reference exists.
        unsafe { &*self.map.at(0).cast() }
    }
}

/// The mask of a seal.
fn mask_of(seal: u64) -> u8 {
    (seal >> SEAL_CRC_BITS) as u8
}

fn mask_of_segment(segment: Segment) -> u8 {
    (((1u32 << segment.count) - 1) << segment.first) as u8
}

/// A shared mapping of a whole file, every page of it present.
struct Mapping {
    start: NonNull<u8>,
    bytes: usize,
}

// SAFETY: a mapping belongs to the process, not to a thread, and whoever has the `Mapping` is its only user.
unsafe impl Send for Mapping {}

impl Mapping {
    /// Maps `file`, which has `bytes` bytes or becomes so long, and is then all zero.
    fn open(file: &File, path: &Path, bytes: u64) -> Result<Mapping, OpenError> {
        let failed = |what, source| OpenError::Nv {
            path: path.into(),
            what,
            source,
        };
        let too_little = |source| OpenError::NvTooLittle {
            path: path.into(),
            needed: bytes,
            source,
        };
        let metadata = file.metadata().map_err(|e| failed("no metadata", e))?;
        if metadata.len() != bytes {
            let emptied = file.set_len(0).and_then(|()| file.set_len(bytes));
            emptied.map_err(|e| failed("cannot be sized", e))?;
        }
        let map = allocate(file, bytes).and_then(|()| Mapping::map(file, bytes as usize));
        map.inspect(Mapping::touch).map_err(too_little)
    }

    fn map(file: &File, bytes: usize) -> io::Result<Mapping> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a mapping at an address of the kernel's choice disturbs none. It is needed because what is in this
        // memory must outlive the process. Nobody cuts the file short: the lock keeps other controllers away.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                bytes,
                protection,
                libc::MAP_SHARED,
                file.as_raw_fd(),
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Mapping { start, bytes })
    }

    /// Makes every page present for writing, so that no store waits for a page fault.
    fn touch(&self) {
        for offset in (0..self.bytes).step_by(4096) {
            let at = self.at(offset);
            // SAFETY: inside the mapping. What is read is written back, so an image stays what it is; volatile, so
            // that the compiler does not leave it out.
            unsafe { at.write_volatile(at.read_volatile()) };
        }
    }

    fn at(&self, offset: usize) -> *mut u8 {
        assert!(offset < self.bytes, "{offset} is not in NV memory");
        // SAFETY: just checked to be inside the mapping.
        unsafe { self.start.as_ptr().add(offset) }
    }

    fn write(&self, offset: usize, bytes: &[u8]) {
        assert!(offset + bytes.len() <= self.bytes, "{offset} is not in NV memory");
        std::sync::atomic::compiler_fence(Ordering::SeqCst);
        // SAFETY: just checked to be inside the mapping; `bytes` is elsewhere, since no reference into the mapping
        // lives longer than a call. The fences keep the compiler from moving it across other stores.
        unsafe { std::ptr::copy(bytes.as_ptr(), self.at(offset), bytes.len()) };
        std::sync::atomic::compiler_fence(Ordering::SeqCst);
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped in `map` with this length, and unmapped nowhere else.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.bytes) };
    }
}

/// Where the file of NV memory is: in a directory that is held, so that nobody puts another in its place.
struct Place {
    dir: PrivateDir,
    name: OsString,
    path: PathBuf,
}

impl Place {
    fn open(path: &Path) -> Result<Place, OpenError> {
        let parent = path.parent().filter(|p| !p.as_os_str().is_empty());
        let parent = parent.unwrap_or(Path::new("."));
        let dir = PrivateDir::open(parent).map_err(|e| match e {
            NotPrivate::Io(e) => failed(path, "its directory cannot be opened")(e),
            NotPrivate::Refused(why) => OpenError::NvNotPrivate {
                path: parent.into(),
                why,
            },
        })?;
        // Before a file is made where none may be.
        page_bytes(&dir, path)?;
        let name = path.file_name().ok_or(io::ErrorKind::InvalidFilename.into());
        Ok(Place {
            dir,
            name: name.map_err(failed(path, "has no name"))?.into(),
            path: path.into(),
        })
    }

    /// Opens or makes the file and locks it. The kernel gives the lock back when this process ends.
    fn take(&self, settings: &Settings) -> Result<File, OpenError> {
        let failed = |what| failed(&self.path, what);
        loop {
            let file = self.open_file()?;
            let metadata = file.metadata().map_err(failed("no metadata"))?;
            match file.try_lock() {
                Ok(()) => {}
                Err(fs::TryLockError::WouldBlock) => {
                    return Err(OpenError::Running {
                        controller: settings.controller,
                        cell: settings.cell_name.clone(),
                        pid: locker_of(metadata.ino()).unwrap_or(0),
                    });
                }
                Err(fs::TryLockError::Error(e)) => return Err(failed("cannot be locked")(e)),
            }
            // A predecessor removes the file while it holds the lock: then this one is a lock of nothing.
            let found = self.dir.identity_of(&self.name);
            if found.is_ok_and(|found| found == (metadata.dev(), metadata.ino())) {
                return Ok(file);
            }
        }
    }

    fn open_file(&self) -> Result<File, OpenError> {
        let foreign = |what| {
            let path = self.path.clone();
            Err(OpenError::NvForeign { path, what })
        };
        let file = match self.dir.open_or_make(&self.name) {
            Err(e) if e.raw_os_error() == Some(libc::ELOOP) => return foreign("a symbolic link"),
            opened => opened.map_err(failed(&self.path, "cannot be opened"))?,
        };
        let metadata = file.metadata().map_err(failed(&self.path, "no metadata"))?;
        if !metadata.is_file() {
            return foreign("something that is no file");
        }
        // It may have been put there before the directory was private, and be open elsewhere since.
        if metadata.uid() != geteuid().as_raw() {
            return foreign("a file of another user");
        }
        Ok(file)
    }

    fn remove(&self) -> io::Result<()> {
        self.dir.remove(&self.name)
    }
}

fn failed(path: &Path, what: &'static str) -> impl FnOnce(io::Error) -> OpenError {
    move |source| OpenError::Nv {
        path: path.into(),
        what,
        source,
    }
}

/// The process that has locked the file with this inode number (proc_locks(5)). Only for a message: the number alone may
/// be that of a file elsewhere.
fn locker_of(inode: u64) -> Option<u32> {
    let locks = fs::read_to_string("/proc/locks").ok()?;
    let of_file = |line: &&str| {
        let place = line.split_ascii_whitespace().nth(5);
        line.contains("FLOCK") && place.and_then(|p| p.rsplit(':').next()) == Some(&inode.to_string())
    };
    locks
        .lines()
        .find(of_file)?
        .split_ascii_whitespace()
        .nth(4)?
        .parse()
        .ok()
}

/// Whether the file has an image of `header`. One of this boot whose sizes are others is refused, and one of a newer format;
/// so is what is no NV memory at all, nor a file that was just made: zeroes.
fn has_image(file: &File, path: &Path, header: &NvHeader) -> Result<bool, OpenError> {
    let page = first_page(file).map_err(failed(path, "cannot be read"))?;
    let sizes = |h: &NvHeader| (h.buffers, h.ries);
    let identity = page[IDENTITY_OFFSET..].first_chunk::<IDENTITY_BYTES>();
    let named = identity.is_some_and(|i| nv::decode_identity(i).is_ok_and(|uuid| !uuid.is_nil()));
    match nv::decode(&page) {
        Ok(found)
            if named && found.boot == header.boot && found.cell == header.cell && sizes(&found) != sizes(header) =>
        {
            let bytes = |h: &NvHeader| u64::from(h.buffers) * 2 * BUFFER_BYTES as u64;
            Err(OpenError::NvSizes {
                path: path.into(),
                image: bytes(&found),
                settings: bytes(header),
            })
        }
        Err(why @ (WireError::Version { .. } | WireError::Features { .. })) => {
            Err(OpenError::NvNewer { path: path.into(), why })
        }
        Err(WireError::Magic { .. } | WireError::Blank { .. }) if page != [0; HEADER_BYTES] => {
            Err(OpenError::NvForeign {
                path: path.into(),
                what: "a file that has something else in it",
            })
        }
        found => Ok(named && found.as_ref() == Ok(header)),
    }
}

/// The first page of a file, zeroes after its end.
fn first_page(file: &File) -> io::Result<[u8; HEADER_BYTES]> {
    let mut page = [0; HEADER_BYTES];
    let bytes = file.metadata()?.len().min(HEADER_BYTES as u64) as usize;
    file.read_exact_at(&mut page[..bytes], 0)?;
    Ok(page)
}

/// The page size of the file system that `opened` is on, which must keep its files in memory.
fn page_bytes(opened: impl AsFd, path: &Path) -> Result<u64, OpenError> {
    let fs = fstatfs(opened).map_err(|e| failed(path, "cannot tell its file system")(e.into()))?;
    if fs.f_type == libc::TMPFS_MAGIC || fs.f_type == libc::HUGETLBFS_MAGIC {
        Ok(fs.f_bsize as u64)
    } else {
        Err(OpenError::NvMedium { path: path.into() })
    }
}

/// Gives every page of the file a place, or fails.
fn allocate(file: &File, bytes: u64) -> io::Result<()> {
    let present = file.metadata()?.blocks() * 512;
    // A tmpfs may promise more than the machine has.
    if available_bytes().is_some_and(|available| available < bytes.saturating_sub(present)) {
        return Err(io::Error::from_raw_os_error(libc::ENOMEM));
    }
    loop {
        // SAFETY: takes no pointer. It is needed because a page without a place is a SIGBUS at its first use.
        let result = unsafe { libc::fallocate(file.as_raw_fd(), 0, 0, bytes as libc::off_t) };
        if result == 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        // A signal, as hugetlbfs and older kernels have it.
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

/// Memory that can be had without swapping, as the kernel estimates it (proc_meminfo(5)).
fn available_bytes() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|l| l.strip_prefix("MemAvailable:"))?;
    line.trim()
        .strip_suffix(" kB")?
        .parse::<u64>()
        .ok()
        .map(|kib| kib << 10)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{FORKS, TempDir, settings};
    use std::os::unix::fs::PermissionsExt;
    use twincell_core::ids::Controller;

    const BOOT: Uuid = Uuid(0xb007);

    fn geometry(buffers: u32) -> Geometry {
        Geometry {
            buffers,
            ..Geometry::for_cache(0)
        }
    }

    fn open(settings: &Settings) -> NvMemory {
        NvMemory::open(settings, &geometry(64), BOOT).expect("NV memory")
    }

    fn fill(memory: &NvMemory, buffer: BufferIndex, byte: u8) {
        for block in 0..8 {
            // SAFETY: a whole block is there, and nobody else uses it.
            unsafe { memory.block(buffer, block).write_bytes(byte + block as u8, BLOCK_BYTES) };
        }
    }

    fn segment(buffer: BufferIndex, first: u8, count: u8) -> Segment {
        Segment { buffer, first, count }
    }

    #[test]
    fn an_image_outlives_who_wrote_it() {
        let _forks = FORKS.read();
        let dir = TempDir::in_memory("nv");
        let settings = settings(&dir, Controller::A);
        let mut memory = open(&settings);
        assert_eq!(memory.image(), None, "there is no image before the first is named");
        memory.new_image(Uuid(7));
        memory.store(NvAddress(3), 0xdead_beef);
        fill(&memory, BufferIndex(5), 1);
        memory.seal(BufferIndex(5), 0b0110);
        drop(memory);

        let memory = open(&settings);
        let image = memory.image().expect("the image");
        assert_eq!(image.uuid, Uuid(7));
        assert_eq!(image.words.len(), geometry(64).words() as usize);
        assert_eq!(image.words[3], 0xdead_beef);
        assert_eq!(image.words.iter().filter(|w| **w != 0).count(), 1);
        assert!(memory.is_intact(segment(BufferIndex(5), 0, 8)));
        // SAFETY: as in `fill`.
        unsafe { memory.block(BufferIndex(5), 1).write(99) };
        assert!(!memory.is_intact(segment(BufferIndex(5), 0, 8)));
    }

    #[test]
    fn a_fresh_image_has_nothing_of_the_old() {
        let _forks = FORKS.read();
        let dir = TempDir::in_memory("nv");
        let mut memory = open(&settings(&dir, Controller::A));
        memory.new_image(Uuid(7));
        memory.store(NvAddress(0), 1);
        memory.seal(BufferIndex(0), 0xff);
        memory.new_image(Uuid(8));
        let image = memory.image().expect("the image");
        assert_eq!(image.uuid, Uuid(8));
        assert!(image.words.iter().all(|w| *w == 0));
        fill(&memory, BufferIndex(0), 3);
        assert!(
            memory.is_intact(segment(BufferIndex(0), 0, 8)),
            "the old seal is still there"
        );
    }

    #[test]
    fn what_was_written_under_another_boot_is_no_image() {
        let _forks = FORKS.read();
        let dir = TempDir::in_memory("nv");
        let settings = settings(&dir, Controller::A);
        open(&settings).new_image(Uuid(7));
        let other_boot = NvMemory::open(&settings, &geometry(64), Uuid(0xb008)).expect("NV memory");
        assert_eq!(other_boot.image(), None);
        drop(other_boot);
        assert_eq!(open(&settings).image(), None, "what was refused once is gone");
    }

    #[test]
    fn an_image_of_other_sizes_is_refused_and_stays() {
        let _forks = FORKS.read();
        let dir = TempDir::in_memory("nv");
        let settings = settings(&dir, Controller::A);
        open(&settings).new_image(Uuid(7));
        for buffers in [128, 192] {
            let refused = NvMemory::open(&settings, &geometry(buffers), BOOT)
                .err()
                .expect("refused");
            let text = refused.to_string();
            assert!(text.contains("cache of 524288 bytes"), "{text}");
        }
        assert_eq!(open(&settings).image().map(|i| i.uuid), Some(Uuid(7)));
        // Without a name there is no image, and nothing to lose.
        open(&settings).new_image(Uuid::NIL);
        let larger = NvMemory::open(&settings, &geometry(128), BOOT).expect("NV memory");
        assert_eq!(larger.image(), None);
    }

    #[test]
    fn a_damaged_header_or_identity_is_no_image() {
        let _forks = FORKS.read();
        let dir = TempDir::in_memory("nv");
        let settings = settings(&dir, Controller::A);
        for offset in [20, IDENTITY_OFFSET + 9] {
            let mut memory = open(&settings);
            memory.new_image(Uuid(7));
            memory.map.write(offset, &[0xaa]);
            drop(memory);
            assert_eq!(open(&settings).image(), None, "damage at {offset}");
        }
    }

    #[test]
    fn a_seal_is_checked_whatever_part_of_it_is_used() {
        let dir = TempDir::in_memory("nv");
        let memory = open(&settings(&dir, Controller::A));
        let buffer = BufferIndex(1);
        fill(&memory, buffer, 10);
        memory.seal(buffer, 0b0011_1000);
        fill(&memory, buffer, 20);
        assert!(!memory.is_intact(segment(buffer, 3, 3)));
        assert!(!memory.is_intact(segment(buffer, 0, 8)));
        assert!(!memory.is_intact(segment(buffer, 3, 2)));
        memory.unseal(buffer);
        assert!(memory.is_intact(segment(buffer, 3, 3)));
    }

    #[test]
    fn what_is_sealed_of_damaged_data_passes_no_check_until_it_changes() {
        let dir = TempDir::in_memory("nv");
        let memory = open(&settings(&dir, Controller::A));
        let buffer = BufferIndex(1);
        fill(&memory, buffer, 10);
        memory.damage(buffer);
        for mask in [0xff, 0b0001_1000] {
            memory.seal(buffer, mask);
            assert!(!memory.is_intact(segment(buffer, 3, 2)), "{mask:#b}");
        }
        memory.unseal(buffer);
        memory.seal(buffer, 0xff);
        assert!(memory.is_intact(segment(buffer, 0, 8)));
    }

    #[test]
    fn what_is_known_of_a_buffer_is_its_seal_until_it_changes() {
        let dir = TempDir::in_memory("nv");
        let memory = open(&settings(&dir, Controller::A));
        let (buffer, middle) = (BufferIndex(2), segment(BufferIndex(2), 2, 3));
        let crc = |byte: u8| {
            let blocks: Vec<u8> = (2..5).flat_map(|block| [byte + block; BLOCK_BYTES]).collect();
            crc32c_append(0, &blocks)
        };
        fill(&memory, buffer, 10);
        memory.unseal(buffer);
        assert_eq!(memory.sealed_crc(middle), None);
        memory.expect(middle, crc(10));
        memory.seal(buffer, 0b0001_1100);
        assert_eq!(memory.sealed_crc(middle), Some(crc(10)));
        assert_eq!(memory.sealed_crc(segment(buffer, 2, 2)), None);
        assert!(memory.is_intact(middle));

        // What is known of some blocks is not taken for what others are, nor for what comes later.
        memory.seal(buffer, 0b0011_1100);
        assert!(memory.is_intact(segment(buffer, 0, 8)));
        memory.unseal(buffer);
        fill(&memory, buffer, 20);
        memory.seal(buffer, 0b0001_1100);
        assert_eq!(memory.sealed_crc(middle), Some(crc(20)));
    }

    #[test]
    fn a_second_process_is_told_who_is_there() {
        let _forks = FORKS.read();
        let dir = TempDir::in_memory("nv");
        let settings = settings(&dir, Controller::B);
        let first = open(&settings);
        let error = NvMemory::open(&settings, &geometry(64), BOOT)
            .err()
            .expect("refused")
            .to_string();
        let expected = format!(
            "controller B of cell test is already running, pid {}",
            std::process::id()
        );
        assert_eq!(error, expected);
        first.remove().expect("removed");
        let left = fs::read_dir(settings.nv_memory.parent().expect("a directory")).expect("its entries");
        assert_eq!(left.count(), 0, "something was left behind");
        open(&settings);
    }

    /// An older program was started again: what the newer one has left is not its to throw away.
    #[test]
    fn an_image_of_a_newer_format_stays() {
        let _forks = FORKS.read();
        let dir = TempDir::in_memory("nv");
        let settings = settings(&dir, Controller::A);
        let mut memory = open(&settings);
        memory.new_image(Uuid(7));
        drop(memory);
        let mut bytes = fs::read(&settings.nv_memory).expect("the image");
        bytes[8] = 2;
        let (constant, crc) = bytes[..IDENTITY_OFFSET].split_last_chunk_mut().expect("a CRC");
        *crc = twincell_wire::crc32c(constant).to_le_bytes();
        fs::write(&settings.nv_memory, &bytes).expect("written");

        let error = NvMemory::open(&settings, &geometry(64), BOOT).err().expect("refused");
        assert!(matches!(error, OpenError::NvNewer { .. }), "{error}");
        let left = fs::read(&settings.nv_memory).expect("the image");
        assert!(left == bytes, "it was changed");
    }

    /// Whoever could put something in its place must not have it written to by this process.
    #[test]
    fn what_is_no_memory_is_neither_followed_nor_emptied() {
        let _forks = FORKS.read();
        let dir = TempDir::in_memory("nv");
        let settings = settings(&dir, Controller::A);
        let foreign = || {
            let error = NvMemory::open(&settings, &geometry(64), BOOT).err().expect("refused");
            assert!(matches!(error, OpenError::NvForeign { .. }), "{error}");
        };
        let victim = dir.path("victim");
        fs::write(&victim, "precious").expect("written");
        std::os::unix::fs::symlink(&victim, &settings.nv_memory).expect("a link");
        foreign();
        assert_eq!(fs::read(&victim).expect("the victim"), b"precious");

        fs::remove_file(&settings.nv_memory).expect("removed");
        let begins_with_zeroes = [&[0; 1024][..], b"precious"].concat();
        for content in [b"precious", &begins_with_zeroes[..]] {
            fs::write(&settings.nv_memory, content).expect("written");
            foreign();
            assert!(fs::read(&settings.nv_memory).expect("the file") == content);
        }
    }

    /// It ended after it had made the file, and before it had written to it.
    #[test]
    fn a_file_of_zeroes_was_just_made() {
        let _forks = FORKS.read();
        let dir = TempDir::in_memory("nv");
        let settings = settings(&dir, Controller::A);
        for bytes in [0, 100, 1 << 20] {
            let file = File::create(&settings.nv_memory).expect("a file");
            file.set_len(bytes).expect("zeroes");
            assert_eq!(open(&settings).image(), None);
        }
    }

    #[test]
    fn a_directory_that_others_may_write_to_is_refused() {
        let dir = TempDir::in_memory("nv");
        let settings = settings(&dir, Controller::A);
        let open = fs::Permissions::from_mode(0o1777);
        fs::set_permissions(dir.path(""), open).expect("a mode");
        let error = NvMemory::open(&settings, &geometry(64), BOOT).err().expect("refused");
        assert!(matches!(error, OpenError::NvNotPrivate { .. }), "{error}");
        assert!(!settings.nv_memory.exists(), "a file was left behind");
    }

    #[test]
    fn an_ordinary_file_system_is_refused() {
        let dir = TempDir::on_disk("nv");
        let settings = settings(&dir, Controller::A);
        let error = NvMemory::open(&settings, &geometry(64), BOOT).err().expect("refused");
        assert!(matches!(error, OpenError::NvMedium { .. }), "{error}");
        assert!(!settings.nv_memory.exists(), "a file was left behind");
    }

    #[test]
    fn too_much_is_refused_and_not_a_crash_later() {
        let dir = TempDir::in_memory("nv");
        let settings = settings(&dir, Controller::A);
        // 16 TiB.
        let error = NvMemory::open(&settings, &geometry(1 << 24), BOOT).err();
        // A machine with so much memory may well take it.
        if let Some(error) = error {
            assert!(matches!(error, OpenError::NvTooLittle { .. }), "{error}");
            assert!(!settings.nv_memory.exists(), "what could be had in part stayed taken");
        }
    }
}
