//! An iSCSI session: whatever comes, in whatever pieces, it does not panic, it bounds what it keeps, and every
//! command that it submits it lets go of.
#![no_main]

use libfuzzer_sys::fuzz_target;
use std::collections::BTreeMap;
use std::num::NonZeroU16;
use twincell_core::host::{HostOp, Status};
use twincell_core::ids::{BLOCK_BYTES, BlockCount, Controller, NcaeIndex, Noid, Time, Uuid};
use twincell_core::layout::metadata::{Name, Redundancy};
use twincell_core::manage::LunView;
use twincell_target::iscsi::IscsiSession;
use twincell_target::session::{Command, Outside, Session, Tag, View};

/// An array that keeps nothing. It checks what it is given.
struct Array {
    view: View,
    commands: BTreeMap<Tag, Command>,
    fetching: BTreeMap<Tag, (u64, u64)>,
    fetched: Vec<(Tag, bool)>,
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
        assert!(self.commands.insert(tag, command).is_none(), "{tag:?} is in use");
        assert!(command.in_hand <= command.blocks);
        if command.op != HostOp::Sync {
            assert!(command.start.0 + u64::from(command.blocks.0) <= self.view.luns[0].blocks);
        }
    }

    fn abort(&mut self, tag: Tag) {
        assert!(self.commands.contains_key(&tag), "nobody has {tag:?}");
    }

    fn data(&mut self, tag: Tag, offset: u64, bytes: &[u8]) {
        let (next, end) = self.fetching.get_mut(&tag).expect("data that were fetched");
        assert_eq!(offset, *next);
        *next += bytes.len() as u64;
        assert!(*next <= *end);
    }

    fn fetched(&mut self, tag: Tag, complete: bool) {
        let (next, end) = self.fetching.remove(&tag).expect("an answer to a fetch");
        assert!(!complete || next == end);
        self.fetched.push((tag, complete));
    }
}

/// Carries out some of the commands, as `choice` says: the rest stays for later.
fn work(session: &mut IscsiSession, array: &mut Array, choice: u8) {
    for (tag, complete) in std::mem::take(&mut array.fetched) {
        let status = if complete { Status::Good } else { Status::Aborted };
        array.commands.remove(&tag);
        session.complete(tag, status, array);
    }
    let waiting: Vec<(Tag, Command)> = array.commands.iter().map(|(tag, command)| (*tag, *command)).collect();
    for (tag, command) in waiting {
        if array.fetching.contains_key(&tag) || choice & 1 != 0 {
            continue;
        }
        match command.op {
            HostOp::Write { .. } if choice & 2 == 0 => {
                let bytes = command.blocks.index() * BLOCK_BYTES;
                array.fetching.insert(tag, (0, bytes as u64));
                session.fetch(tag, BlockCount(0), command.blocks, array);
                continue;
            }
            HostOp::Read => session.send_data(tag, BlockCount(0), &vec![7; command.blocks.index() * BLOCK_BYTES]),
            HostOp::Write { .. } | HostOp::Sync => {}
        }
        array.commands.remove(&tag);
        let status = if choice & 4 == 0 { Status::Good } else { Status::Busy };
        session.complete(tag, status, array);
    }
}

fuzz_target!(|input: &[u8]| {
    let Some((&[options, mut choice], mut bytes)) = input.split_first_chunk::<2>() else {
        return;
    };
    let mut session = IscsiSession::new(NonZeroU16::MIN);
    let mut array = Array {
        view: View {
            controller: Controller::A,
            cell_name: "fuzz".to_owned(),
            target_name: "iqn.t".to_owned(),
            portals: [vec!["1.2.3.4:3260".to_owned()], vec![]],
            luns: vec![LunView {
                ncae: NcaeIndex(0),
                noid: Noid(1),
                name: Name::new("fuzz").expect("a name"),
                uuid: Uuid(1),
                blocks: 2048,
                redundancy: Redundancy::None,
                owner: Controller::A,
                moving: false,
            }],
            luns_generation: 1,
            paths_generation: 1,
            partner_in: false,
        },
        commands: BTreeMap::new(),
        fetching: BTreeMap::new(),
        fetched: Vec::new(),
    };
    // Most inputs begin behind the login: what comes after it is larger.
    if options & 1 == 0 {
        let text = b"InitiatorName=iqn.i\0TargetName=iqn.t\0InitialR2T=No\0MaxRecvDataSegmentLength=512\0";
        let mut login = [0; 48];
        (login[0], login[1], login[7]) = (0x43, 0x87, text.len() as u8);
        session.receive(&login, &mut array);
        session.receive(text, &mut array);
        session.receive(&vec![0; text.len().next_multiple_of(4) - text.len()], &mut array);
        assert!(session.initiator().is_some());
    }
    let piece = usize::from(options >> 1) * 4 + 1;
    while !bytes.is_empty() {
        let (head, rest) = bytes.split_at(piece.min(bytes.len()));
        bytes = rest;
        session.receive(head, &mut array);
        choice = choice.rotate_left(1);
        work(&mut session, &mut array, choice);
        session.output().clear();
        // A window of commands, and the immediate ones.
        assert!(array.commands.len() <= 128 + 16);
    }
    session.disconnected(&mut array);
    assert!(session.is_over());
    assert!(array.fetching.is_empty(), "a fetch without an answer");
    array.fetched.clear();
    for tag in std::mem::take(&mut array.commands).into_keys() {
        session.complete(tag, Status::Aborted, &mut array);
    }
    assert!(array.commands.is_empty(), "a command after the end");
});
