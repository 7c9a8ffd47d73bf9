//! A host's stream into an NBD session, in pieces, and an array that answers in some order with some status.
//!
//! What must hold: no panic, each command is completed once, and `in_hand` never says more than the command has.
#![no_main]

use libfuzzer_sys::fuzz_target;
use twincell_core::host::{HostOp, Status};
use twincell_core::ids::{BLOCK_BYTES, BlockCount, Controller, NcaeIndex, Noid, Time, Uuid};
use twincell_core::layout::metadata::{Name, Redundancy};
use twincell_core::manage::LunView;
use twincell_target::nbd::NbdSession;
use twincell_target::session::{Command, Outside, Session, Tag, View};

/// Reads that are longer fail: the fuzzer is to search, not to copy.
const READ_BLOCKS_MAX: u32 = 64;

struct Array {
    view: View,
    running: Vec<(Tag, Command)>,
    aborted: usize,
}

impl Array {
    fn command(&self, tag: Tag) -> &Command {
        let found = self.running.iter().find(|(t, _)| *t == tag);
        &found.expect("a command that is in progress").1
    }
}

impl Outside for Array {
    fn view(&self) -> &View {
        &self.view
    }

    /// It stands still: nothing waits for long here.
    fn now(&self) -> Time {
        Time(0)
    }

    fn submit(&mut self, tag: Tag, command: Command) {
        assert!(self.running.iter().all(|(t, _)| *t != tag), "a tag is used twice");
        assert!(command.in_hand <= command.blocks);
        self.running.push((tag, command));
    }

    fn abort(&mut self, tag: Tag) {
        self.command(tag);
        self.aborted += 1;
    }

    fn data(&mut self, tag: Tag, offset: u64, bytes: &[u8]) {
        let end = offset + bytes.len() as u64;
        assert!(end <= u64::from(self.command(tag).blocks.0) * BLOCK_BYTES as u64);
    }

    fn fetched(&mut self, tag: Tag, _: bool) {
        self.command(tag);
    }
}

/// Ends one command in the way that `choice` says.
fn answer(session: &mut NbdSession, array: &mut Array, choice: u8) {
    if array.running.is_empty() {
        return;
    }
    let (tag, command) = array.running[usize::from(choice >> 3) % array.running.len()];
    if choice & 1 != 0 && matches!(command.op, HostOp::Write { .. }) {
        return session.fetch(tag, BlockCount(0), command.blocks, array);
    }
    let status = match choice >> 1 & 3 {
        0 if command.op == HostOp::Read && command.blocks.0 > READ_BLOCKS_MAX => Status::ReadError,
        0 => Status::Good,
        1 => Status::Busy,
        2 => Status::OutOfRange,
        _ => Status::Transitioning,
    };
    if status == Status::Good && command.op == HostOp::Read {
        session.send_data(tag, BlockCount(0), &vec![0; command.blocks.index() * BLOCK_BYTES]);
    }
    array.running.retain(|(t, _)| *t != tag);
    session.complete(tag, status, array);
}

fuzz_target!(|bytes: &[u8]| {
    let lun = LunView {
        ncae: NcaeIndex(0),
        noid: Noid(1),
        name: Name::new("one").expect("a name"),
        uuid: Uuid(1),
        blocks: 1 << 20,
        redundancy: Redundancy::Vraid1,
        owner: Controller::A,
        moving: false,
    };
    let mut array = Array {
        view: View {
            controller: Controller::A,
            cell_name: "fuzz".into(),
            target_name: String::new(),
            portals: [vec![], vec![]],
            luns: vec![lun],
            luns_generation: 1,
            paths_generation: 1,
            partner_in: true,
        },
        running: vec![],
        aborted: 0,
    };
    let mut session = NbdSession::new();
    let (mut rest, mut held) = (bytes, vec![]);
    // Half of the inputs begin in transmission, where most of the states are.
    if bytes.first().is_some_and(|b| b & 1 != 0) {
        session.receive(b"\0\0\0\x03IHAVEOPT\0\0\0\x01\0\0\0\x03one", &mut array);
    }
    while let [length, choice, after @ ..] = rest {
        let (piece, after) = after.split_at(usize::from(*length).min(after.len()));
        held.extend_from_slice(piece);
        let taken = session.receive(&held, &mut array);
        held.drain(..taken);
        answer(&mut session, &mut array, *choice);
        session.output().clear();
        rest = after;
    }
    session.disconnected(&mut array);
    assert_eq!(
        array.aborted,
        array.running.len(),
        "everything in progress is withdrawn"
    );
    for (tag, _) in std::mem::take(&mut array.running) {
        session.complete(tag, Status::Aborted, &mut array);
    }
    assert!(array.running.is_empty() && session.is_over());
});
