//! What the fence rests on (R5): the lock of an open file description is released only after the last disk write that
//! a killed process had submitted through it. Measured, not believed: once the lock can be had, the disk must not
//! change any more.
//!
//! The program runs itself as the process that is killed, so it has a `main` of its own.

use io_uring::{IoUring, opcode, types};
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const ROUNDS: usize = 8;
const WRITES: usize = 32;
const WRITE_BYTES: usize = 256 << 10;
const PAGE_BYTES: usize = 4096;
const LIMIT: Duration = Duration::from_secs(20);

fn main() {
    let mut arguments = std::env::args().skip(1);
    match (arguments.next().as_deref(), arguments.next()) {
        (Some("--write-until-killed"), Some(path)) => write_until_killed(Path::new(&path)),
        // What else there is comes from the test runner: a list of names, of which there is one.
        (Some("--list"), _) => println!("a_lock_outlives_its_process_until_the_last_write: test"),
        _ => a_lock_outlives_its_process_until_the_last_write(),
    }
}

fn a_lock_outlives_its_process_until_the_last_write() {
    let path = disk();
    let mut late = Vec::new();
    for round in 0..ROUNDS {
        kill_a_writer(&path, round);
        let at_death = pages(&path);
        let file = open(&path);
        let begun = Instant::now();
        while !try_lock(&file) {
            assert!(
                begun.elapsed() < LIMIT,
                "waited {LIMIT:?} for the lock of a process that was killed"
            );
            std::thread::sleep(Duration::from_micros(100));
        }
        let waited = begun.elapsed();
        let at_lock = pages(&path);
        std::thread::sleep(Duration::from_millis(200));
        let changed = differences(&at_lock, &pages(&path));
        assert_eq!(
            changed, 0,
            "round {round}: {changed} pages were written after the lock was given back"
        );
        late.push((differences(&at_death, &at_lock), waited));
    }
    std::fs::remove_file(&path).expect("removed");
    println!("test a_lock_outlives_its_process_until_the_last_write ... ok");
    for (pages, waited) in late {
        println!("  {pages} pages written after the process was gone, lock free after another {waited:?}");
    }
}

/// A file of zeroes that has all its blocks, on the disk that the build is on.
fn disk() -> PathBuf {
    let exe = std::env::current_exe().expect("the path of this program");
    let path = exe.with_file_name(format!("twincell-test-drain-{}", std::process::id()));
    std::fs::write(&path, vec![0; WRITES * WRITE_BYTES]).expect("written");
    File::open(&path).and_then(|f| f.sync_all()).expect("synced");
    path
}

fn open(path: &Path) -> File {
    let mut options = OpenOptions::new();
    options.read(true).write(true).custom_flags(libc::O_DIRECT);
    options.open(path).expect("a disk that takes direct I/O")
}

/// Runs a writer, and kills it in the midst of its writes.
fn kill_a_writer(path: &Path, round: usize) {
    let mut child = Command::new(std::env::current_exe().expect("the path of this program"))
        .arg("--write-until-killed")
        .arg(path)
        .stdout(Stdio::piped())
        .spawn()
        .expect("a writer");
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("its output"))
        .read_line(&mut line)
        .expect("its first line");
    assert_eq!(line, "writing\n");
    std::thread::sleep(Duration::from_millis(5 + 3 * round as u64));
    child.kill().expect("killed");
    child.wait().expect("its end");
}

/// The writer: takes the lock, and writes all of the disk over and over, each time with another number.
fn write_until_killed(path: &Path) {
    let file = open(path);
    assert!(try_lock(&file), "the lock of a fresh disk is free");
    let mut ring = IoUring::new(WRITES as u32).expect("a ring");
    // One more page than is used, to begin on a page.
    let mut memory = vec![0u8; WRITES * WRITE_BYTES + PAGE_BYTES];
    let skip = memory.as_ptr().align_offset(PAGE_BYTES);
    println!("writing");
    for number in 1u64.. {
        for page in memory[skip..][..WRITES * WRITE_BYTES].chunks_mut(PAGE_BYTES) {
            page[..8].copy_from_slice(&number.to_le_bytes());
        }
        for i in 0..WRITES {
            let from = memory[skip + i * WRITE_BYTES..].as_ptr();
            let write = opcode::Write::new(types::Fd(file.as_raw_fd()), from, WRITE_BYTES as u32)
                .offset((i * WRITE_BYTES) as u64)
                .build();
            // SAFETY: the memory is not touched before all completions are popped below, and lives longer.
            unsafe { ring.submission().push(&write) }.expect("room for all");
        }
        ring.submit_and_wait(WRITES).expect("written");
        for completion in ring.completion() {
            assert_eq!(completion.result(), WRITE_BYTES as i32);
        }
    }
}

fn try_lock(file: &File) -> bool {
    // SAFETY: all zero is a `flock`.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = libc::F_WRLCK as libc::c_short;
    lock.l_len = 1;
    // SAFETY: the pointer is that of a local, only read here.
    unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &lock) == 0 }
}

/// The first 8 bytes of every page, from the medium.
fn pages(path: &Path) -> Vec<u64> {
    let file = open(path);
    let mut memory = vec![0u8; WRITES * WRITE_BYTES + PAGE_BYTES];
    let skip = memory.as_ptr().align_offset(PAGE_BYTES);
    let bytes = &mut memory[skip..][..WRITES * WRITE_BYTES];
    file.read_exact_at(bytes, 0).expect("read");
    let first = |page: &[u8]| u64::from_le_bytes(*page.first_chunk().expect("a page"));
    bytes.chunks(PAGE_BYTES).map(first).collect()
}

fn differences(a: &[u64], b: &[u64]) -> usize {
    a.iter().zip(b).filter(|(a, b)| a != b).count()
}
