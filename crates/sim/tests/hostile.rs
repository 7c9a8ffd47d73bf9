//! A partner that says what makes no sense is heard no further: it is checked as any outside is.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use twincell_core::ids::Controller::{A, B};
use twincell_core::ids::{BlockCount, BufferIndex, LUNS_MAX, NcaeIndex, RieIndex, Time, TransferIndex, Vba};
use twincell_core::link::frame::{Frame, Mfc, Request, Response, Rqr};
use twincell_core::list::List;
use twincell_core::manage::ManageReply;
use twincell_core::{Core, Effect, Event};
use twincell_sim::Scenario;

/// What is done to a request to mirror, and its name.
type Change = (&'static str, fn(&mut Rqr));

thread_local! {
    static CHANGE: Cell<Option<fn(&mut Rqr)>> = const { Cell::new(None) };
}

/// A step of B, whose next request to mirror is changed before.
fn changed(core: &mut Core, now: Time, event: Event, effects: &mut Vec<Effect>) {
    if let Event::LinkFrame {
        connection,
        frame: Frame::Messages(frame),
        ..
    } = &event
        && let Some(messages) = core.place_of(*connection, frame)
    {
        for mfc in messages.as_mut_slice() {
            if let Mfc::Rqr(rqr) = mfc
                && let Some(change) = CHANGE.take()
            {
                change(rqr);
            }
        }
    }
    core.step(now, event, effects);
}

/// A has old data of two granules, and writes them anew; the request is changed. Returns why B takes offence, if it does.
fn refused(change: fn(&mut Rqr), start: u64, blocks: u32) -> Option<String> {
    let mut s = Scenario::new().each_step(changed).both_serving();
    s.disk_writes_take(5_000);
    s.written(A, 0, 16);
    s.written(A, 64, 8);
    CHANGE.set(Some(change));
    let run = catch_unwind(AssertUnwindSafe(|| {
        s.write(A, start, blocks);
        s.pass(100);
    }));
    assert!(CHANGE.take().is_none(), "no request came");
    let panic = run.err()?;
    let text = panic.downcast_ref::<String>().cloned().unwrap_or_default();
    assert!(text.contains("offence"), "{text}");
    Some(text)
}

/// The pools of a script: 16 RIEs and 192 buffers of each pair.
const RIES: u16 = 16;
const BUFFERS: u32 = 192;

#[test]
fn a_request_that_makes_no_sense() {
    let changes: [Change; 17] = [
        ("a start beyond every LUN", |r| r.start = Vba(1 << 48)),
        ("no blocks", |r| r.blocks = BlockCount(0)),
        ("too many blocks", |r| r.blocks = BlockCount(257)),
        ("no valid blocks", |r| r.valid = 0),
        ("some valid blocks of two granules", |r| {
            (r.valid, r.old) = (1, List::new())
        }),
        ("some valid blocks over old data", |r| {
            (r.valid, r.blocks) = (1, BlockCount(8));
            r.new = List::from_slice(&r.new[..1]);
        }),
        ("an RIE of B's own", |r| r.rie = RieIndex(r.rie.0 + RIES)),
        ("an RIE that is not there", |r| r.rie = RieIndex(2 * RIES)),
        ("too few new buffers", |r| r.new = List::from_slice(&r.new[..1])),
        ("too many new buffers", |r| r.new.push(BufferIndex(100))),
        ("a LUN that cannot be", |r| r.ncae = NcaeIndex(LUNS_MAX as u16)),
        ("a new buffer of B's own", |r| {
            r.new.as_mut_slice()[1] = BufferIndex(BUFFERS + 100);
        }),
        ("a new buffer in use", |r| r.new.as_mut_slice()[1] = r.old[0]),
        ("an old buffer that is not there", |r| {
            r.old.as_mut_slice()[1] = BufferIndex(2 * BUFFERS);
        }),
        ("an old buffer that is free", |r| {
            r.old.as_mut_slice()[1] = BufferIndex(100)
        }),
        ("an old buffer twice", |r| r.old.as_mut_slice()[1] = r.old[0]),
        ("an old buffer of another LUN", |r| r.ncae = NcaeIndex(1)),
    ];
    for (what, change) in changes {
        assert!(refused(change, 0, 16).is_some(), "{what} is taken");
    }
}

/// The last that is right, next to the first that is not.
#[test]
fn a_request_that_makes_sense() {
    assert_eq!(refused(|_| {}, 0, 16), None);
    let beside = |r: &mut Rqr| r.old.push(BufferIndex(2));
    assert!(
        refused(beside, 0, 16).is_some(),
        "an old buffer of the granule behind is taken"
    );
    let before = |r: &mut Rqr| r.old.push(BufferIndex(0));
    assert!(
        refused(before, 8, 8).is_some(),
        "an old buffer of the granule before is taken"
    );
}

/// How many numbers `far` changes.
const FAR: usize = 16;

/// Changes the n-th number to one that names nothing, if the message has it.
fn far(n: usize, message: &mut Mfc) -> bool {
    let managed = Response::Managed(Ok(ManageReply::Done));
    match (n, message) {
        (0, Mfc::Rtr { rie, .. })
        | (1, Mfc::MirrorData { rie, .. })
        | (2, Mfc::Mda { rie, .. })
        | (3, Mfc::Dto { rie, .. })
        | (4, Mfc::Dss { rie, .. })
        | (5, Mfc::Withdraw { rie, .. }) => *rie = RieIndex(u16::MAX),
        (6, Mfc::Release(buffers)) => buffers.as_mut_slice()[0] = BufferIndex(u32::MAX),
        (7, Mfc::Release(buffers)) => buffers.as_mut_slice()[0] = BufferIndex(2 * BUFFERS),
        (8, Mfc::LevelBuffers { first, .. }) => *first = BufferIndex(u32::MAX - 7),
        (13, Mfc::Response { id, .. }) => id.index = u16::MAX,
        (14, Mfc::Response { id, .. }) => id.generation = u16::MAX,
        (15, Mfc::Response { response, .. }) => *response = managed,
        (9..=12, Mfc::Request { request, .. }) => return far_forward(n, request),
        _ => return false,
    }
    true
}

fn far_forward(n: usize, request: &mut Request) -> bool {
    let Request::Forward {
        ncae,
        start,
        blocks,
        transfer,
        ..
    } = request
    else {
        return false;
    };
    match n {
        9 => *ncae = NcaeIndex(u16::MAX),
        10 => *start = Vba(u64::MAX),
        11 => *blocks = BlockCount(u32::MAX),
        _ => *transfer = TransferIndex(u16::MAX),
    }
    true
}

thread_local! {
    static NEXT: Cell<Option<usize>> = const { Cell::new(None) };
    static AT: Cell<bool> = const { Cell::new(false) };
}

/// A step whose messages have a number changed, once. It may end the link, and nothing else.
fn with_a_far_number(core: &mut Core, now: Time, event: Event, effects: &mut Vec<Effect>) {
    if let Event::LinkFrame {
        connection,
        frame: Frame::Messages(frame),
        ..
    } = &event
        && let Some(messages) = core.place_of(*connection, frame)
        && let Some(n) = NEXT.get()
        && messages.as_mut_slice().iter_mut().any(|m| far(n, m))
    {
        NEXT.set(None);
    }
    AT.set(true);
    core.step(now, event, effects);
    AT.set(false);
}

/// All that two controllers say to each other, more or less.
fn everything(s: &mut Scenario) {
    s.written(A, 0, 16);
    s.host_data_takes(3_000);
    let (late, gone) = (s.write_long(A, 16, 16), s.write_long(A, 256, 16));
    s.pass(1_000);
    s.withdraw(gone);
    s.good(late);
    s.host_data_takes(0);
    s.written(B, 512, 200);
    s.reads(B, 16, 16, late);
    s.sync(B);
    s.pass(500);
    s.disk_writes_take(2_000);
    s.written(A, 0, 16);
    s.start_when_down();
    s.crash(A);
    s.crash(B);
    s.until_both_serve();
}

/// Whatever the partner names that is not there: the core says so, and does not panic.
#[test]
fn a_number_that_names_nothing() {
    for n in 0..FAR {
        let mut s = Scenario::new().each_step(with_a_far_number).both_serving();
        NEXT.set(Some(n));
        // What it comes to for the script does not matter.
        let run = catch_unwind(AssertUnwindSafe(|| everything(&mut s)));
        assert!(NEXT.take().is_none(), "message {n} did not come: {}", run.is_ok());
        assert!(!AT.take(), "message {n}: the core panicked");
    }
}
