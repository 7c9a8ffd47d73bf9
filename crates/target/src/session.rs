//! The interface between a host's protocol, which has no I/O, and whoever moves its bytes and carries out its
//! commands.

use twincell_core::host::{HostOp, Status};
use twincell_core::ids::{BlockCount, Controller, Nanos, NcaeIndex, Noid, Time, Vba};
use twincell_core::manage::LunView;

/// Bytes for a host that wait to be sent: a session that has more takes nothing that it would have to answer. A host that
/// reads nothing could else fill the memory with answers.
pub const OUTPUT_BYTES_MAX: usize = 4 << 20;
/// The same for one that has not said yet what it wants: anybody can open many of those.
pub const STRANGER_OUTPUT_BYTES_MAX: usize = 64 << 10;
/// A write that has waited outside of the array for so long is not begun any more where nothing has come from its host for as
/// long: the host may have given up this path and have sent it again through the partner, and newer ones after it (R12). The core
/// has the same limit for those that wait to be forwarded, and says where it comes from.
pub const NOT_BEGUN_AFTER: Nanos = Nanos::from_millis(4200);

/// A command as its session names it; used again after `complete`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tag(pub u32);

/// What a session wants the array to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Command {
    /// The LUN's place.
    pub ncae: NcaeIndex,
    /// The LUN's identity.
    pub noid: Noid,
    /// What to do.
    pub op: HostOp,
    /// First block.
    pub start: Vba,
    /// How many.
    pub blocks: BlockCount,
    /// Of a write: whole blocks, from the first on, that the session has in hand, or that come without being asked for.
    pub in_hand: BlockCount,
}

/// What hosts may know of the cell, through one controller. The engine replaces it when it changes.
#[derive(Clone, Debug)]
pub struct View {
    /// The controller that this is.
    pub controller: Controller,
    /// Name of the cell.
    pub cell_name: String,
    /// iSCSI target name.
    pub target_name: String,
    /// iSCSI portals (`HOST:PORT`) of A and of B.
    pub portals: [Vec<String>; 2],
    /// The LUNs, in order of their number.
    pub luns: Vec<LunView>,
    /// Grows whenever the set of LUNs changes (SCSI: 06/3F/0E).
    pub luns_generation: u64,
    /// Grows whenever an owner or path state changes (SCSI: 06/2A/06).
    pub paths_generation: u64,
    /// Whether the partner is in: its target port group is unavailable otherwise.
    pub partner_in: bool,
}

/// What a session calls while it handles something.
pub trait Outside {
    /// The cell as it is now.
    fn view(&self) -> &View;
    /// What a clock says that only goes forward.
    fn now(&self) -> Time;
    /// When something came from the host last: not when its session got it, which may be later.
    fn heard(&self) -> Time {
        self.now()
    }
    /// Whether it is too late to begin a write that has waited since then: nothing has come from its host for as long
    /// ([`NOT_BEGUN_AFTER`]).
    fn is_too_late(&self, since: Time) -> bool {
        self.now().since(since.max(self.heard())) >= NOT_BEGUN_AFTER
    }
    /// Carry out a command; `complete` answers, once.
    fn submit(&mut self, tag: Tag, command: Command);
    /// The host withdrew a command; `complete` still comes.
    fn abort(&mut self, tag: Tag);
    /// Data for a `fetch` that is not yet answered: `bytes` belong at byte `offset` of the command's data.
    fn data(&mut self, tag: Tag, offset: u64, bytes: &[u8]);
    /// The `fetch` is answered: everything came (`true`), or will never come.
    fn fetched(&mut self, tag: Tag, complete: bool);
    /// Bytes that were taken from the session's output and are still held, because the host does not take them.
    fn unsent(&self) -> usize {
        0
    }
    /// Whether the session may keep so many bytes of its host's data, besides those that it keeps: the room is shared with all
    /// other sessions. A session that keeps none always may.
    fn keep(&mut self, bytes: usize) -> bool {
        let _ = bytes;
        true
    }
    /// So many of these bytes are kept no more.
    fn let_go(&mut self, bytes: usize) {
        let _ = bytes;
    }
}

/// Payload that comes next from the host, and what it belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Incoming {
    /// A command.
    pub tag: Tag,
    /// Where in the command's data the next byte belongs.
    pub offset: u64,
    /// How many bytes from there on come one after the other, at least 1; not beyond the end of a `fetch` that is not yet
    /// answered.
    pub bytes: usize,
    /// Bytes of the whole piece that the host sends in one go, those that have come included.
    pub whole: usize,
}

/// One host connection. Bytes go in and out; what it wants of the array goes through [`Outside`].
pub trait Session {
    /// Bytes from the host, in order. Returns how many of them were taken; what is taken and incomplete is kept. A session that
    /// has no room for more leaves the rest, which must come again, before anything else, when output was sent, a command has
    /// ended, or one was asked for data, of this session or another.
    fn receive(&mut self, bytes: &[u8], outside: &mut dyn Outside) -> usize;
    /// The payload that comes next, if that is known. Where it belongs to a `fetch` that is not yet answered, whoever moves
    /// the bytes may put it, or the beginning of it, in place by itself, and then calls `placed` instead of `receive`.
    fn incoming(&self) -> Option<Incoming> {
        None
    }
    /// The next `bytes` bytes of what `incoming` says are in place. Never called where that says nothing.
    fn placed(&mut self, bytes: usize, outside: &mut dyn Outside) {
        let _ = (bytes, outside);
    }
    /// The array wants `blocks` blocks of a write's data from block `offset` on. One `fetch` at a time for a command, and in
    /// order: what is before `offset` is not wanted any more, and the command is not refused for the moment any more.
    fn fetch(&mut self, tag: Tag, offset: BlockCount, blocks: BlockCount, outside: &mut dyn Outside);
    /// Data of a read, in pieces and in order; `bytes` belong at block `offset`.
    fn send_data(&mut self, tag: Tag, offset: BlockCount, bytes: &[u8]);
    /// Some of what was taken from the output is held no more.
    fn sent(&mut self, outside: &mut dyn Outside) {
        let _ = outside;
    }
    /// The command is over.
    fn complete(&mut self, tag: Tag, status: Status, outside: &mut dyn Outside);
    /// The view has changed.
    fn view_changed(&mut self, outside: &mut dyn Outside);
    /// The connection is gone: abort what is in progress. `complete` is still called for it.
    fn disconnected(&mut self, outside: &mut dyn Outside);
    /// Whether something waits for a change that the session cannot notice by itself: `view_changed` is then due now and
    /// then, even if the view stays the same.
    fn wants_view_changed(&self) -> bool {
        false
    }
    /// Bytes for the host. The caller removes from the front what it has sent, or all of it to send it; what it leaves
    /// the session may still change.
    fn output(&mut self) -> &mut Vec<u8>;
    /// Whether there is room for one more answer.
    fn may_answer(&mut self, outside: &dyn Outside) -> bool {
        let most = if self.is_stranger() {
            STRANGER_OUTPUT_BYTES_MAX
        } else {
            OUTPUT_BYTES_MAX
        };
        self.output().len() + outside.unsent() <= most
    }
    /// Whether the host has not said yet what it wants: its handshake, or its login, is not over.
    fn is_stranger(&self) -> bool;
    /// Whether the connection should end once the output is sent.
    fn is_over(&self) -> bool;
    /// The initiator's name and its part of the session identifier, once known, where the protocol has such things. A
    /// session of the same two takes the place of an older one (RFC 7143, 6.3.5), which should then be disconnected.
    fn initiator(&self) -> Option<(&str, [u8; 6])> {
        None
    }
}
