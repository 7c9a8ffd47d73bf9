//! fio writes over NBD and verifies what it reads.

use std::time::Duration;
use twincell_rig::cell::{Cell, Shape};
use twincell_rig::tool::run;

const LIMIT: Duration = Duration::from_secs(180);

fn verify(through: &str, redundancy: &str, extra: &[&str]) {
    let cell = Cell::start(Shape::default());
    let lun = cell.lun("data", "64M", redundancy);
    let uri = format!("--uri={}", cell.nbd_url(&lun, through));
    let job = [
        "--name=verify",
        "--ioengine=nbd",
        &uri,
        "--size=64M",
        "--verify=crc32c",
        "--verify_fatal=1",
    ];
    run(
        "fio",
        &[&job[..], &["--rw=randwrite", "--do_verify=1"], extra].concat(),
        LIMIT,
    )
    .success();
}

#[test]
fn small_blocks_through_the_owner() {
    verify("A", "vraid1", &["--bs=4k", "--iodepth=16"]);
}

#[test]
fn mixed_sizes_through_the_partner() {
    verify(
        "B",
        "none",
        &[
            "--bsrange=512-128k",
            "--bs_unaligned=0",
            "--blockalign=512",
            "--iodepth=8",
        ],
    );
}
