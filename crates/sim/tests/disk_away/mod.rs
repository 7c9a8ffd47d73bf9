//! A disk that is away, and what must hold when it is back.

use twincell_core::ids::Controller::{self, A, B};
use twincell_core::layout::metadata::DiskState::{Missing, Normal};
use twincell_core::layout::metadata::Name;
use twincell_core::manage::ManageOp;
use twincell_sim::{Scenario, Sent};

/// Both serve, and a disk was given up. The first data are those of the write.
pub fn without_disk(disk: usize) -> (Scenario, Sent) {
    let mut s = Scenario::new().both_serving();
    let first = s.write_fua(A, 0, 256);
    s.good(first);
    s.fail_disk(Some(disk));
    let written = s.write_fua(A, if disk < 2 { 4000 } else { 4096 + 4000 }, 8);
    s.good(written);
    s.until_disk(A, disk, Missing);
    s.until_disk(B, disk, Missing);
    s.mark();
    (s, first)
}

/// The operator wants it there.
pub fn move_lun_0(s: &mut Scenario, to: Controller) {
    let name = Name::new("lun0").expect("a name");
    s.manage(A, ManageOp::LunMove { name, to });
}

/// The disk is a full copy again: everything that is mirrored is on it, and the other may go.
pub fn ends_level(mut s: Scenario, disk: usize, reads: &[(u64, u32, Sent)]) {
    s.until_disk(A, disk, Normal);
    s.until_disk(B, disk, Normal);
    s.pass(100);
    s.fail_disk(Some(disk ^ 1));
    for (start, blocks, written) in reads {
        s.reads(A, *start, *blocks, *written);
        s.reads(B, *start, *blocks, *written);
    }
    s.fail_disk(None);
    s.end();
}
