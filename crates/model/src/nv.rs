//! NV memory of one controller: it outlives the process.

use twincell_core::config::Geometry;
use twincell_core::ids::{BufferIndex, NvAddress, Uuid};
use twincell_core::memory::Sgl;
use twincell_core::nv::Image;
use twincell_core::nv::resolve::resolve;

/// Blocks of a buffer, one tag each.
type Buffer = [u8; 8];

/// The NV memory of one controller.
#[derive(Clone, Hash)]
pub struct Nv {
    /// Identity and words.
    pub image: Image,
    buffers: Vec<Buffer>,
    /// What was sealed: mask, and the tags under it.
    seals: Vec<Option<(u8, Buffer)>>,
}

fn under(mask: u8, buffer: &Buffer) -> Buffer {
    std::array::from_fn(|n| if mask >> n & 1 == 1 { buffer[n] } else { 0 })
}

impl Nv {
    /// Memory that was never used.
    pub fn new(geometry: Geometry) -> Nv {
        let buffers = geometry.buffers_of_both() as usize;
        Nv {
            image: Image {
                uuid: Uuid::NIL,
                words: vec![0; geometry.words() as usize],
            },
            buffers: vec![[0; 8]; buffers],
            seals: vec![None; buffers],
        }
    }

    /// One store.
    pub fn store(&mut self, address: NvAddress, word: u64) {
        self.image.words[address.index()] = word;
    }

    /// Empties the image.
    pub fn renew(&mut self, uuid: Uuid) {
        self.image.uuid = uuid;
        self.image.words.fill(0);
        self.seals.fill(None);
    }

    /// Notes what a buffer holds.
    pub fn seal(&mut self, buffer: BufferIndex, mask: u8) {
        self.seals[buffer.index()] = Some((mask, under(mask, &self.buffers[buffer.index()])));
    }

    /// Whether a buffer still holds what was noted.
    pub fn is_sound(&self, buffer: BufferIndex) -> bool {
        let now = |mask| under(mask, &self.buffers[buffer.index()]);
        self.seals[buffer.index()].is_none_or(|(mask, then)| now(mask) == then)
    }

    /// Copies blocks of one buffer to another.
    pub fn merge(&mut self, from: BufferIndex, to: BufferIndex, mask: u8) {
        for n in (0..8).filter(|n| mask >> n & 1 == 1) {
            self.buffers[to.index()][n] = self.buffers[from.index()][n];
        }
    }

    /// The tags in some buffers.
    pub fn read(&self, sgl: &Sgl) -> Vec<u8> {
        let places = sgl
            .iter()
            .flat_map(|s| (s.first..s.first + s.count).map(|n| (s.buffer, n)));
        places
            .map(|(buffer, n)| self.buffers[buffer.index()][usize::from(n)])
            .collect()
    }

    /// Puts tags into some buffers.
    pub fn write(&mut self, sgl: &Sgl, tags: &[u8]) {
        let places = sgl
            .iter()
            .flat_map(|s| (s.first..s.first + s.count).map(|n| (s.buffer, n)));
        for ((buffer, n), tag) in places.zip(tags) {
            self.buffers[buffer.index()][usize::from(n)] = *tag;
        }
    }

    /// After a crash right here, what `resolve` says must make sense: no damage, and one valid buffer for each granule.
    pub fn check(&self, geometry: Geometry) -> Result<(), String> {
        let valid = resolve(&self.image, geometry).map_err(|_| "the NV image is damaged".to_owned())?;
        for (n, one) in valid.iter().enumerate() {
            if valid[..n]
                .iter()
                .any(|other| (other.ncae, other.start) == (one.ncae, one.start))
            {
                return Err(format!("two valid buffers for block {}", one.start));
            }
        }
        Ok(())
    }
}
