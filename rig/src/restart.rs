//! How long a restart of both controllers takes when their memory is full of data that the disks lack.

use crate::cell::{Cell, Pool, SETTLE, addresses_on, is_alive, signal};
use crate::poll_for;
use crate::ports::Ports;
use crate::shelf::{Shelf, Trouble};
use rustix::process::Signal;
use serde_json::Value;
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use twincell_client::Url;
use twincell_client::device::{BLOCK_BYTES, Request};
use twincell_client::multipath::{Timing, Volume};

const NAMES: [&str; 2] = ["A", "B"];
const DISKS: usize = 8;
/// Blocks of each write: the largest that is atomic.
const BLOCKS: u32 = 256;
const DEPTH: usize = 8;
/// Memory is full when nothing was acknowledged for this long.
const FULL: Duration = Duration::from_secs(1);
const CONNECT: Duration = Duration::from_secs(5);
/// How long it may take until everything is on the disks.
const DRAIN: Duration = Duration::from_secs(300);
const BUFFER_BYTES: u64 = 4096;

/// What was measured, from the start of both processes on.
#[derive(Clone, Copy, Debug)]
pub struct Restart {
    /// Bytes that the memory of each held, and the disks lacked.
    pub dirty: u64,
    /// Until a write was acknowledged.
    pub first_write: Duration,
    /// Until the cell was whole.
    pub whole: Duration,
    /// Until the disks had everything.
    pub drained: Duration,
}

/// Fills `cache` MiB in each controller of a cell in `parent`, kills both, and starts them again. Everything that was
/// acknowledged is read back in the end.
pub fn measure(parent: &Path, cache: u64) -> Result<Restart, String> {
    let root = tempfile::tempdir_in(parent).map_err(|e| format!("{}: {e}", parent.display()))?;
    // Two LUNs with two copies of what each fills its half of the cache with, and room for what is laid out.
    let shelf = Shelf::mount(parent, DISKS, (cache + 256) << 20)?;
    let ports = Ports::reserve();
    let addresses = addresses_on(&ports);
    let pool = Pool::Given(shelf.paths());
    let cell = Cell::create_in(root, ports, &pool, &format!("{cache}M"), &addresses)?;
    cell.twincell(&["cell", "start"]).ok()?;
    await_whole(&cell)?;
    let luns = NAMES.map(|owner| make_lun(&cell, owner, cache));
    let [a, b] = luns;
    let urls = [a?, b?];
    tell_all(&shelf, Trouble::Stall);
    let written = [fill(&urls[0])?, fill(&urls[1])?];
    let dirty = (written[0] + written[1]) * u64::from(BLOCKS) * BLOCK_BYTES as u64;
    let held = cell.status()["cell"]["dirty_buffers"].as_u64().unwrap_or(0) * BUFFER_BYTES;
    // A controller counts what it owns: half of what was written.
    if held < dirty / 2 {
        return Err(format!("of {dirty} bytes the memory of a controller holds only {held}"));
    }
    kill_both(&cell, &shelf)?;
    let begun = Instant::now();
    let starting = std::thread::spawn({
        let dir = cell.dir();
        move || crate::cell::twincell_in(&dir, &["cell", "start"]).ok()
    });
    // Past what was filled, so that nothing of it is overwritten.
    let mut volume = Volume::new(&urls[0], Timing::default());
    let after = written[0] * u64::from(BLOCKS);
    let ack = volume.write(after, Arc::new(vec![1; BLOCK_BYTES]), false);
    let first_write = ack.map_err(|e| format!("a first write: {e}"))?.acked - begun;
    await_whole(&cell)?;
    let whole = begun.elapsed();
    starting.join().map_err(|_| "cell start panicked".to_owned())??;
    poll_for("everything on the disks", DRAIN, || {
        let status = cell.status();
        let left = &status["cell"]["dirty_buffers"];
        (left.as_u64() == Some(0)).then_some(()).ok_or(left.to_string())
    })?;
    let drained = begun.elapsed();
    urls.iter()
        .zip(written)
        .try_for_each(|(urls, writes)| check(urls, writes))?;
    Ok(Restart {
        dirty,
        first_write,
        whole,
        drained,
    })
}

fn await_whole(cell: &Cell) -> Result<(), String> {
    poll_for("a mirrored cell", SETTLE * 3, || {
        let status = cell.status();
        let whole = status["cell"]["state"] == "ok" && status["cell"]["mirroring"] == "on";
        whole.then_some(()).ok_or(status.to_string())
    })
}

/// A LUN of `owner`, as large as its half of the cache and a little more; its paths.
fn make_lun(cell: &Cell, owner: &str, cache: u64) -> Result<Vec<Url>, String> {
    let name = format!("of-{}", owner.to_lowercase());
    let size = format!("{}M", cache / 2 + 64);
    let made = cell
        .twincell(&["lun", "create", &name, "--size", &size, "--json"])
        .ok()?;
    let made: Value = serde_json::from_str(&made.stdout).map_err(|e| format!("{}: {e}", made.stdout))?;
    cell.twincell(&["lun", "move", &name, "--to", owner]).ok()?;
    let mut controllers = NAMES;
    controllers.sort_by_key(|c| *c != owner);
    let url = |c| cell.iscsi_url(&made["lun"], c).parse().map_err(|e| format!("{e}"));
    controllers.into_iter().map(url).collect()
}

fn tell_all(shelf: &Shelf, trouble: Trouble) {
    (0..DISKS).for_each(|n| shelf.tell(n, trouble));
}

/// What write `n` writes.
fn data(n: u64) -> Vec<u8> {
    n.wrapping_mul(0x9e37_79b9_7f4a_7c15)
        .to_be_bytes()
        .repeat(BLOCKS as usize * BLOCK_BYTES / 8)
}

/// Writes through the owner until nothing is acknowledged any more; how many writes were, all of those before included.
fn fill(urls: &[Url]) -> Result<u64, String> {
    let failed = |e: twincell_client::Error| format!("filling the cache: {e}");
    let mut device = urls[0].connect(CONNECT).map_err(failed)?;
    device.set_timeout(SETTLE);
    let room = device.blocks() / u64::from(BLOCKS) - 1;
    let (mut begun, mut acked) = (0, std::collections::BTreeSet::new());
    let mut of_tag = std::collections::HashMap::new();
    loop {
        while begun < room && of_tag.len() < DEPTH {
            let start = begun * u64::from(BLOCKS);
            let request = Request::Write {
                start,
                data: Arc::new(data(begun)),
                fua: false,
            };
            of_tag.insert(device.submit(request).map_err(failed)?, begun);
            begun += 1;
        }
        let Some(done) = device.wait(Instant::now() + FULL).map_err(failed)? else {
            break;
        };
        done.result.map_err(|e| failed(e.into()))?;
        acked.extend(of_tag.remove(&done.tag));
        if of_tag.is_empty() {
            return Err("the whole LUN fits into the cache".to_owned());
        }
    }
    // The connection ends with the controller.
    Ok((0..).take_while(|n| acked.contains(n)).count() as u64)
}

/// Kills both while no disk answers. They can end only when the disks go on; what they had posted lands then.
fn kill_both(cell: &Cell, shelf: &Shelf) -> Result<(), String> {
    let pids: Vec<u32> = NAMES.iter().filter_map(|c| cell.pid(c)).collect();
    pids.iter().for_each(|pid| signal(*pid, Signal::KILL));
    tell_all(shelf, Trouble::None);
    poll_for("the end of both controllers", SETTLE, || {
        let alive = pids.iter().any(|pid| is_alive(*pid));
        (!alive).then_some(()).ok_or(format!("{pids:?}"))
    })
}

/// Whether the LUN holds what the first `writes` writes wrote.
fn check(urls: &[Url], writes: u64) -> Result<(), String> {
    let mut volume = Volume::new(urls, Timing::default());
    for n in 0..writes {
        let read = volume.read(n * u64::from(BLOCKS), BLOCKS);
        let read = read.map_err(|e| format!("reading back: {e}"))?;
        if read.data != data(n) {
            return Err(format!("write {n} of {writes} to {} is lost or torn", urls[0]));
        }
    }
    Ok(())
}

impl fmt::Display for Restart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let gib = self.dirty as f64 / f64::from(1 << 30);
        writeln!(
            f,
            "restart of both controllers, each with {gib:.2} GiB that the disks lack"
        )?;
        for (what, took) in [
            ("first acknowledged write", self.first_write),
            ("mirrored again", self.whole),
            ("everything on the disks", self.drained),
        ] {
            let seconds = took.as_secs_f64();
            writeln!(f, "  {what:26} {seconds:6.2} s, {:6.2} s per GiB", seconds / gib)?;
        }
        Ok(())
    }
}
