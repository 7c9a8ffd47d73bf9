//! A file system with many files, to be copied to a LUN and back.

use crate::tool::run;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// More than two thousand.
const FILES: u64 = 2_100;
const LIMIT: Duration = Duration::from_secs(120);

/// Makes an ext4 image of `size_mib` MiB in `dir`, with more than 2,000 files of 0 to 64 KiB.
pub fn ext4(dir: &Path, size_mib: u64) -> PathBuf {
    let tree = dir.join("tree");
    for n in 0..FILES {
        let folder = tree.join(format!("folder-{}", n % 37));
        std::fs::create_dir_all(&folder).expect("a folder");
        std::fs::write(folder.join(format!("file-{n}")), content(n)).expect("a file");
    }
    let image = dir.join("image");
    let path = image.to_str().expect("a path in UTF-8");
    let tree_path = tree.to_str().expect("a path in UTF-8");
    run(
        "mkfs.ext4",
        &["-q", "-F", "-d", tree_path, path, &format!("{size_mib}M")],
        LIMIT,
    )
    .success();
    std::fs::remove_dir_all(tree).expect("the files are in the image");
    image
}

/// Fails the test unless `copy` is `image`, and a sound file system.
#[track_caller]
pub fn same(image: &Path, copy: &Path) {
    let [image, copy] = [image, copy].map(|p| p.to_str().expect("a path in UTF-8"));
    run("cmp", &[image, copy], LIMIT).success();
    run("e2fsck", &["-fn", copy], LIMIT).success();
}

/// Copies `image` to the LUN at this NBD address, with nbdcopy.
#[track_caller]
pub fn copy_over_nbd(image: &Path, url: &str) {
    let image = image.to_str().expect("a path in UTF-8");
    run("nbdcopy", &[image, url], LIMIT).success();
}

/// Fails the test unless the LUN at this NBD address holds `image`. What is read of it lies beside `image`.
#[track_caller]
pub fn same_over_nbd(image: &Path, url: &str) {
    let copy = image.with_extension("copy");
    run("nbdcopy", &[url, copy.to_str().expect("a path in UTF-8")], LIMIT).success();
    same(image, &copy);
}

/// Bytes that no two files have in common, by a linear congruential generator.
fn content(n: u64) -> Vec<u8> {
    let mut state = n.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let length = (state >> 40) % (64 << 10) / (1 + n % 7);
    let next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as u8
    };
    std::iter::repeat_with(next).take(length as usize).collect()
}
