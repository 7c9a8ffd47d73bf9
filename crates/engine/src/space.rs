//! How much of each disk no LUN has.

use twincell_core::layout::metadata::Metadata;

/// Free PSEGs by disk, counted once for each generation of the metadata.
#[derive(Default)]
pub(crate) struct FreeSpace {
    generation: Option<u64>,
    free: Vec<Option<u32>>,
}

impl FreeSpace {
    /// Free PSEGs of each of `disks` disks; `None` where the metadata do not say.
    pub(crate) fn of(&mut self, metadata: Option<&Metadata>, disks: usize) -> Vec<Option<u32>> {
        let generation = metadata.map(|m| m.generation);
        if generation != self.generation || self.free.len() != disks {
            self.generation = generation;
            self.free = vec![None; disks];
            if let Some(metadata) = metadata {
                self.count(metadata);
            }
        }
        self.free.clone()
    }

    fn count(&mut self, metadata: &Metadata) {
        for (free, disk) in self.free.iter_mut().zip(&metadata.disks) {
            *free = Some(disk.psegs);
        }
        for address in metadata.luns.iter().flat_map(|lun| &lun.psegs) {
            if let Some(Some(free)) = self.free.get_mut(address.disk.index()) {
                *free = free.saturating_sub(1);
            }
        }
    }
}
