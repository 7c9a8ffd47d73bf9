//! A file system is copied to a LUN and back by the programs that people use, and survives the kill of its owner.

use std::path::Path;
use std::time::Duration;
use twincell_rig::cell::{Cell, Shape};
use twincell_rig::image;
use twincell_rig::tool::run;

const LIMIT: Duration = Duration::from_secs(120);
const IMAGE_MIB: u64 = 192;

fn shape() -> Shape {
    Shape {
        disks: 6,
        disk_size: "512M",
        cache: "32M",
    }
}

fn other(controller: &str) -> &'static str {
    if controller == "A" { "B" } else { "A" }
}

fn qemu_copy(from: &str, to: &str) {
    run(
        "qemu-img",
        &["convert", "-n", "-f", "raw", "-O", "raw", from, to],
        LIMIT,
    )
    .success();
}

fn read_back_with_qemu(url: &str, image: &Path, scratch: &Path) {
    let copy = scratch.join("copy");
    run(
        "qemu-img",
        &["convert", "-f", "raw", "-O", "raw", url, copy.to_str().unwrap()],
        LIMIT,
    )
    .success();
    image::same(image, &copy);
}

/// Copies through `through`, kills the owner, and reads back through the survivor; then brings the owner back and
/// reads through it.
fn iscsi_through(through: &str) {
    let cell = Cell::start(shape());
    let lun = cell.lun("data", &format!("{IMAGE_MIB}M"), "vraid1");
    let image = image::ext4(cell.scratch(), IMAGE_MIB);
    qemu_copy(image.to_str().unwrap(), &cell.iscsi_url(&lun, through));
    let owner = cell.owner("data");
    cell.kill(&owner);
    read_back_with_qemu(&cell.iscsi_url(&lun, other(&owner)), &image, cell.scratch());
    cell.bring_back();
    read_back_with_qemu(&cell.iscsi_url(&lun, &owner), &image, cell.scratch());
}

#[test]
fn iscsi_through_a() {
    iscsi_through("A");
}

#[test]
fn iscsi_through_b() {
    iscsi_through("B");
}

#[test]
fn nbd() {
    let cell = Cell::start(shape());
    let lun = cell.lun("data", &format!("{IMAGE_MIB}M"), "vraid1");
    let image = image::ext4(cell.scratch(), IMAGE_MIB);
    let owner = cell.owner("data");
    image::copy_over_nbd(&image, &cell.nbd_url(&lun, &owner));
    cell.kill(&owner);
    image::same_over_nbd(&image, &cell.nbd_url(&lun, other(&owner)));
    cell.bring_back();
    image::same_over_nbd(&image, &cell.nbd_url(&lun, &owner));
}

#[test]
fn what_was_written_is_there_after_stop_and_start() {
    let cell = Cell::start(shape());
    let lun = cell.lun("data", &format!("{IMAGE_MIB}M"), "none");
    let image = image::ext4(cell.scratch(), IMAGE_MIB);
    qemu_copy(image.to_str().unwrap(), &cell.iscsi_url(&lun, "A"));
    cell.twincell(&["cell", "stop"]).success();
    cell.bring_back();
    read_back_with_qemu(&cell.iscsi_url(&lun, "B"), &image, cell.scratch());
}
