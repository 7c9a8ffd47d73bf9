//! The window of the link is full: what waits for a frame has not left.

use twincell_core::ids::Controller::{A, B};
use twincell_core::layout::metadata::Name;
use twincell_core::manage::ManageOp;
use twincell_sim::{Scenario, trace};

/// A write every 2 ms; the link takes 100 ms each way. Its window is full long before the first is acknowledged, and from then
/// on a frame with what waits leaves every 2 ms. Each write here is the first that does not fit into one of these frames; its host
/// withdraws it, and its data fail to come so many milliseconds after it was sent: before the next frame.
fn withdrawn(write: u64, after: u64) -> Scenario {
    let mut s = Scenario::large().both_serving();
    s.link_takes(100);
    s.host_data_takes(after);
    for n in 0..120 {
        let sent = s.write_long(A, n * 8, 8);
        s.pass(1);
        if n == write {
            s.withdraw(sent);
        }
        s.pass(1);
    }
    s
}

/// The mirror hears of no withdrawal of what it has not heard of. It would take offence, and one of both would be put out.
#[test]
fn what_has_not_left_is_not_withdrawn() {
    trace(&["requested-before-it-fits"], || {
        for (write, after) in [(80, 43), (88, 29), (96, 15)] {
            let mut s = withdrawn(write, after);
            s.pass(6_000);
            assert!(!s.tells("withdraw RIE"), "write {write}:\n{}", s.story());
            s.end();
        }
    });
}

/// Each controller waits for the only transfer buffer that the other lends it, with a read of its own behind that, and with the
/// other's write behind the read. The reads need no buffer of the owner: they go, and all the others after them.
#[test]
fn what_is_read_here_waits_for_no_buffer_there() {
    trace(&["reads-wait-for-forwards"], || {
        let mut s = Scenario::small().both_serving();
        let name = Name::new("lun1").expect("a name");
        s.manage(A, ManageOp::LunMove { name, to: B });
        s.until("A -> operator: Ok");
        s.link_takes(50);
        s.pass(200);
        let mut sent = Vec::new();
        let luns = [(A, 1, 0), (B, 0, 1)];
        for (path, theirs, _) in luns {
            s.use_lun(theirs);
            sent.push(s.write(path, 0, 8));
        }
        // Both are on their way.
        s.pass(10);
        for (path, theirs, own) in luns {
            s.use_lun(theirs);
            sent.push(s.read(path, 100, 8));
            s.use_lun(own);
            sent.push(s.read(path, 0, 8));
        }
        s.pass(4_000);
        assert!(sent.iter().all(|command| s.is_good(*command)), "{}", s.story());
        s.end();
    });
}

/// Three long reads have all the transfer buffers when one that came before them needs another. They keep theirs from portion to
/// portion, and go on: nobody else can give one back.
#[test]
fn a_long_read_goes_on_with_its_buffer() {
    trace(&["wait-for-what-one-has"], || {
        let mut s = Scenario::small().both_serving();
        s.host_data_takes(100);
        s.disk_reads_take(200);
        let mut sent = vec![s.write_long(A, 8_192, 8), s.read(A, 8_184, 24)];
        // One disk is read from only twice at a time.
        for start in [0, 1_024, 5_000] {
            sent.push(s.read(A, start, 600));
        }
        s.pass(4_000);
        assert!(sent.iter().all(|command| s.is_good(*command)), "{}", s.story());
        s.end();
    });
}
