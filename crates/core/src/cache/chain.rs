//! Doubly linked lists through arrays: a buffer enters, leaves and is followed without a search or an allocation.

use crate::ids::BufferIndex;

/// The links of all buffers for one kind of list; a buffer is in at most one list of a kind.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Links {
    before: Vec<Option<BufferIndex>>,
    after: Vec<Option<BufferIndex>>,
}

impl Links {
    /// Links for `count` buffers, none in a list.
    pub fn new(count: usize) -> Links {
        Links {
            before: vec![None; count],
            after: vec![None; count],
        }
    }

    /// The buffer after `buffer`.
    pub fn next(&self, buffer: BufferIndex) -> Option<BufferIndex> {
        self.after[buffer.index()]
    }
}

/// One list.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct Chain {
    first: Option<BufferIndex>,
    last: Option<BufferIndex>,
    len: u32,
}

impl Chain {
    /// The first buffer.
    pub fn first(&self) -> Option<BufferIndex> {
        self.first
    }

    /// How many there are.
    pub fn len(&self) -> u32 {
        self.len
    }

    /// Puts `buffer` before `successor`, or at the end.
    pub fn insert_before(&mut self, links: &mut Links, buffer: BufferIndex, successor: Option<BufferIndex>) {
        let before = match successor {
            Some(s) => links.before[s.index()],
            None => self.last,
        };
        links.before[buffer.index()] = before;
        links.after[buffer.index()] = successor;
        match before {
            Some(b) => links.after[b.index()] = Some(buffer),
            None => self.first = Some(buffer),
        }
        match successor {
            Some(s) => links.before[s.index()] = Some(buffer),
            None => self.last = Some(buffer),
        }
        self.len += 1;
    }

    /// Puts all of `other` at the end.
    pub fn append(&mut self, links: &mut Links, other: Chain) {
        let (Some(last), Some(first)) = (self.last, other.first) else {
            if self.last.is_none() {
                *self = other;
            }
            return;
        };
        links.after[last.index()] = Some(first);
        links.before[first.index()] = Some(last);
        self.last = other.last;
        self.len += other.len;
    }

    /// Takes `buffer`, which is in this list, out of it.
    pub fn remove(&mut self, links: &mut Links, buffer: BufferIndex) {
        let before = links.before[buffer.index()].take();
        let after = links.after[buffer.index()].take();
        match before {
            Some(b) => links.after[b.index()] = after,
            None => self.first = after,
        }
        match after {
            Some(a) => links.before[a.index()] = before,
            None => self.last = before,
        }
        self.len -= 1;
    }
}
