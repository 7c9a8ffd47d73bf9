//! Host commands in progress: the core knows them by number, a session by its tag.

use twincell_core::ids::{BLOCK_BYTES, CommandId};
use twincell_core::memory::Memory;
use twincell_target::session::Tag;

/// Data of a write that the core wants.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fetch {
    /// Where in the command's data they begin, in bytes.
    pub offset: u64,
    /// Where they go to.
    pub into: Memory,
}

impl Fetch {
    /// Which byte of `into` is byte `offset` of the command's data, if it and the `bytes` from there on are wanted.
    pub(crate) fn place(&self, offset: u64, bytes: usize) -> Option<usize> {
        let length = u64::from(self.into.blocks()) * BLOCK_BYTES as u64;
        let at = offset.checked_sub(self.offset)?;
        (at + bytes as u64 <= length).then_some(at as usize)
    }
}

/// A host command in progress.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HostTask {
    /// The connection that it came on.
    pub connection: usize,
    /// Its name there.
    pub tag: Tag,
    /// What the core waits for.
    pub fetch: Option<Fetch>,
    /// Whether the core knows that it was withdrawn.
    pub aborted: bool,
}

/// All host commands in progress.
#[derive(Default)]
pub(crate) struct Commands {
    slots: Vec<(u32, Option<HostTask>)>,
    free: Vec<u32>,
}

impl Commands {
    /// Takes a command in.
    pub(crate) fn add(&mut self, connection: usize, tag: Tag) -> CommandId {
        let task = HostTask {
            connection,
            tag,
            fetch: None,
            aborted: false,
        };
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push((0, None));
            self.slots.len() as u32 - 1
        });
        let (generation, slot) = &mut self.slots[index as usize];
        *generation = generation.wrapping_add(1);
        *slot = Some(task);
        CommandId {
            index,
            generation: *generation,
        }
    }

    /// The command called `id`, while it is in progress.
    pub(crate) fn get(&mut self, id: CommandId) -> Option<&mut HostTask> {
        match self.slots.get_mut(id.index as usize) {
            Some((generation, Some(task))) if *generation == id.generation => Some(task),
            _ => None,
        }
    }

    /// Takes a command out.
    pub(crate) fn remove(&mut self, id: CommandId) -> Option<HostTask> {
        let task = *self.get(id)?;
        self.slots[id.index as usize].1 = None;
        self.free.push(id.index);
        Some(task)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_name_does_not_mean_a_new_command() {
        let mut commands = Commands::default();
        let first = commands.add(0, Tag(1));
        assert_eq!(commands.remove(first).map(|t| t.tag), Some(Tag(1)));
        let second = commands.add(0, Tag(2));
        assert_eq!(second.index, first.index);
        assert!(commands.get(first).is_none());
        assert!(commands.remove(first).is_none());
        assert_eq!(commands.get(second).map(|t| t.tag), Some(Tag(2)));
    }
}
